"""Gemma 3, text: Gemma 2 with norms of queries and keys in place of caps; sliding layers have a theta of their own."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, MOST_TOKENS, FamilyTraits, read_window
from fit_jax.models.families.gemma2 import DEFAULTS, SWITCHES, read_scales, write


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    pattern = fields.whole("sliding_window_pattern", 1, MOST_TOKENS)
    return {**read_window(fields, layers, lambda layer: bool((layer + 1) % pattern)), **read_scales(fields)}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {**write(config), "rope_local_base_freq": config.sliding_theta or config.rope.theta}


FAMILY = FamilyTraits(
    "Gemma3ForCausalLM",
    {
        **DEFAULTS,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "sliding_window_pattern": 6,
        LIMIT: 131072,
        # Checkpoints with a vision tower leave these out of their text's config.
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    {**SWITCHES, "qk_norm": True},
    read=_read,
    write=_write,
    activation_field="hidden_activation",
)
