"""SmolLM 3: Llama whose every fourth layer has no rotary embedding."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, MOST_TOKENS, FamilyTraits, read_window, write_window


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    every = fields.whole("no_rope_layer_interval", 1, MOST_TOKENS)
    rotates = fields.flags("no_rope_layers")  # the name notwithstanding, a one stands for a layer that turns
    if rotates is None:
        rotates = [bool((layer + 1) % every) for layer in range(layers)]
    if len(rotates) < layers:
        raise fields.error("no_rope_layers", fields.values["no_rope_layers"], f"shorter than {layers} layers")
    slide = fields.flag("use_sliding_window")
    still = tuple(layer for layer in range(layers) if not rotates[layer])
    return {"nope_layers": still or None, **read_window(fields, layers, lambda layer: slide and not rotates[layer])}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {
        **write_window(config),
        "use_sliding_window": config.window is not None,
        "no_rope_layers": [int(config.rotates(layer)) for layer in range(config.layers)],
    }


FAMILY = FamilyTraits(
    "SmolLM3ForCausalLM",
    {
        "rope_theta": 2e6,
        "no_rope_layer_interval": 4,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        LIMIT: 32768,
    },
    read=_read,
    write=_write,
)
