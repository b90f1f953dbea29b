"""Mixtral: Mistral with a mixture of experts in each layer."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_one_window, write_one_window
from fit_jax.models.limits import LARGEST


def read(fields: Fields, layers: int) -> dict[str, Any]:
    """The window and the experts."""
    return {**read_one_window(fields, layers), **read_experts(fields, 8)}


def read_experts(fields: Fields, default: int) -> dict[str, Any]:
    """How many experts there are, under either of the two names in use, and how many a token goes to."""
    name = "num_experts" if fields.has("num_experts") else "num_local_experts"
    experts = fields.whole(name, 1, LARGEST["experts"], default)
    return {"experts": experts, "experts_per_token": fields.whole("num_experts_per_tok", 1, experts)}


def write(config: DecoderConfig) -> dict[str, Any]:
    """The window and the experts."""
    return {**write_one_window(config), **write_experts(config, "num_local_experts")}


def write_experts(config: DecoderConfig, name: str) -> dict[str, Any]:
    """How many experts there are, under the name that the family has for it, and how many a token goes to."""
    return {name: config.experts, "num_experts_per_tok": config.experts_per_token}


FAMILY = FamilyTraits(
    "MixtralForCausalLM",
    {"sliding_window": None, "num_experts_per_tok": 2, LIMIT: 131072},
    read=read,
    write=write,
    experts={
        "router": "block_sparse_moe.gate",
        "gate_proj": "block_sparse_moe.experts.{}.w1",
        "up_proj": "block_sparse_moe.experts.{}.w3",
        "down_proj": "block_sparse_moe.experts.{}.w2",
    },
)
