"""Qwen 3 with a mixture of experts in each layer: Qwen3-30B-A3B, Qwen3-235B-A22B and Qwen3-Coder."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families import mixtral, qwen3
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_one_window, write_one_window
from fit_jax.models.limits import LARGEST


def check_all_layers(fields: Fields) -> None:
    """Raises InputError where some layers have no experts, which those of no published model are without."""
    step = fields.whole("decoder_sparse_step", 1, LARGEST["layers"])
    if step != 1:
        raise fields.error("decoder_sparse_step", step, "not 1: every layer must have experts")
    if dense := fields.values.get("mlp_only_layers"):
        raise fields.error("mlp_only_layers", dense, "not empty: every layer must have experts")


def read(fields: Fields, layers: int) -> dict[str, Any]:
    """The window, where it is switched on, for all layers; and the experts.

    Raises:
        InputError: Some layers have no experts.
    """
    check_all_layers(fields)
    return {
        **(read_one_window(fields, layers) if fields.flag("use_sliding_window") else {}),
        **mixtral.read_experts(fields, 128),
        "feed_forward": fields.whole("moe_intermediate_size", 1, LARGEST["feed_forward"]),
        "normalize_router": fields.flag("norm_topk_prob"),
    }


def write(config: DecoderConfig) -> dict[str, Any]:
    """The window, its switch and the experts."""
    return {
        **write_one_window(config),
        "use_sliding_window": config.window is not None,
        **mixtral.write_experts(config, "num_experts"),
        "moe_intermediate_size": config.feed_forward,
        "norm_topk_prob": config.normalize_router,
    }


_EXPERTS = {
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
    "norm_topk_prob": False,
}
FAMILY = FamilyTraits(
    "Qwen3MoeForCausalLM",
    {"sliding_window": 4096, "head_dim": None, LIMIT: 32768, **_EXPERTS},
    qwen3.FAMILY.switches,
    read=read,
    write=write,
)
