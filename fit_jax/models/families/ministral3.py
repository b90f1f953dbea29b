"""Ministral 3: Mistral with YaRN, and with queries that grow by position."""

from typing import Any

from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_one_window, write_one_window
from fit_jax.models.families.rotary_fields import rope_scaling

_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def _write(config: DecoderConfig) -> dict[str, Any]:
    rope = {
        "rope_type": "default",
        **(rope_scaling(config.rope) or {}),
        "rope_theta": config.rope.theta,
        "original_max_position_embeddings": config.rope.original_max_positions,
        "llama_4_scaling_beta": config.rope.temperature_beta,
    }
    return {**write_one_window(config), "rope_scaling": None, "rope_parameters": rope}


FAMILY = FamilyTraits(
    "Ministral3ForCausalLM",
    {LIMIT: 262144, "head_dim": 128, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_parameters": _ROPE},
    read=read_one_window,
    write=_write,
)
