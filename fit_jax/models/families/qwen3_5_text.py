"""Qwen 3.5, dense, text: of four layers three keep a state by the gated delta rule, and one attends, with gates.

The sections of its rotary embedding are for images; every token of a text stands at one position in all of them.
"""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, MOST_TOKENS, FamilyTraits
from fit_jax.models.families.rotary_fields import rope_scaling
from fit_jax.models.linear_config import LARGEST_LINEAR, LinearConfig

_KINDS = ("full_attention", "linear_attention")
_SIZES = {
    "key_heads": "linear_num_key_heads",
    "value_heads": "linear_num_value_heads",
    "key_width": "linear_key_head_dim",
    "value_width": "linear_value_head_dim",
    "conv_width": "linear_conv_kernel_dim",
}


def read(fields: Fields, layers: int) -> dict[str, Any]:
    """Which layers keep a state, and their shapes.

    Raises:
        InputError: `layer_types` is no list of the two kinds, or a size is none.
    """
    every = fields.whole("full_attention_interval", 1, MOST_TOKENS)
    kinds = fields.texts("layer_types") or [_KINDS[(layer + 1) % every > 0] for layer in range(layers)]
    if len(kinds) != layers or not {*kinds} <= {*_KINDS}:
        raise fields.error("layer_types", kinds, f"no list of {layers} of {' and '.join(_KINDS)}")
    sizes: dict[str, Any] = {ours: fields.whole(theirs, 1, LARGEST_LINEAR[ours]) for ours, theirs in _SIZES.items()}
    linear = tuple(layer for layer in range(layers) if kinds[layer] == _KINDS[1])
    return {"linear": LinearConfig(layers=linear, **sizes) if linear else LinearConfig()}


def write(config: DecoderConfig) -> dict[str, Any]:
    """Which layers keep a state, their shapes, and the rotary embedding."""
    rope = {"rope_type": "default", **(rope_scaling(config.rope) or {}), "rope_theta": config.rope.theta}
    return {
        "layer_types": [_KINDS[config.linear.has(layer)] for layer in range(config.layers)],
        **{theirs: getattr(config.linear, ours) for ours, theirs in _SIZES.items()},
        "rope_parameters": {**rope, "partial_rotary_factor": config.rope.partial},
    }


FAMILY = FamilyTraits(
    "Qwen3_5ForCausalLM",
    {
        LIMIT: 32768,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "partial_rotary_factor": 0.25,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    },
    {"qk_norm": True, "norm_offset": True, "output_gate": True},
    read=read,
    write=write,
    partial_rotary=True,
    flat_rope=False,
    unread_from=("mtp.",),  # layers that predict several tokens at once
)
