"""OLMoE: a mixture of experts in each layer, with norms over the whole of queries and keys."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families import mixtral
from fit_jax.models.families.family import LIMIT, FamilyTraits


def read(fields: Fields, layers: int) -> dict[str, Any]:
    """The experts.

    Raises:
        InputError: Queries, keys and values are clipped, which those of no published model are.
    """
    del layers
    if fields.has("clip_qkv"):
        raise fields.error("clip_qkv", fields.values["clip_qkv"], "not null: the decoder clips nothing")
    return {**mixtral.read_experts(fields, 64), "normalize_router": fields.flag("norm_topk_prob")}


def write(config: DecoderConfig) -> dict[str, Any]:
    """The experts."""
    return {**mixtral.write_experts(config, "num_experts"), "norm_topk_prob": config.normalize_router}


FAMILY = FamilyTraits(
    "OlmoeForCausalLM",
    {"num_experts_per_tok": 8, "norm_topk_prob": False, LIMIT: 4096, "rms_norm_eps": 1e-5},
    {"qk_norm": True, "qk_norm_whole": True},
    read=read,
    write=write,
)
