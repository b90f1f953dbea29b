"""Qwen 2 and 2.5: Llama with biases on queries, keys and values, whose later layers may slide."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, MOST_TOKENS, FamilyTraits, read_window, write_window


def read(fields: Fields, layers: int) -> dict[str, Any]:
    """The window, where it is switched on; from layer `max_window_layers` on."""
    if not fields.flag("use_sliding_window"):
        return {}
    first = fields.whole("max_window_layers", 0, MOST_TOKENS)
    return read_window(fields, layers, lambda layer: layer >= first)


def write(config: DecoderConfig) -> dict[str, Any]:
    """The window and its switch."""
    return {**write_window(config), "use_sliding_window": config.window is not None}


FAMILY = FamilyTraits(
    "Qwen2ForCausalLM",
    {"sliding_window": 4096, "max_window_layers": 28, LIMIT: 32768},
    {"qkv_bias": True},
    read=read,
    write=write,
)
