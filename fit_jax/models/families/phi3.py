"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama with fused projections, longrope and heads that may turn in part."""

from typing import Any

from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_one_window, write_one_window

_ORIGINAL = "original_max_position_embeddings"


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {
        **write_one_window(config),
        _ORIGINAL: config.rope.original_max_positions,
        "partial_rotary_factor": config.rope.partial,
    }


FAMILY = FamilyTraits(
    "Phi3ForCausalLM",
    {LIMIT: 4096, _ORIGINAL: 4096, "rms_norm_eps": 1e-5},
    read=read_one_window,
    write=_write,
    # Two names of early versions, one of which stands for another scaling elsewhere.
    rope_kinds={"default": "default", "longrope": "longrope", "su": "longrope", "yarn": "longrope"},
    partial_rotary=True,
    fused={
        "attention.qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "mlp.gate_up_proj": ("gate_proj", "up_proj"),
    },
)
