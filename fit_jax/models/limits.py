"""What the numbers of a model may be."""

import math
from typing import Any

from fit_jax.errors import InputError

# Fields of a model that are numbers above 0, where they are given.
_POSITIVE = (
    "norm_epsilon",
    "sliding_theta",
    "query_scale",
    "attention_softcap",
    "logit_softcap",
    "embed_multiplier",
    "residual_multiplier",
    "logit_divisor",
    "attention_multiplier",
    "swiglu_alpha",
    "swiglu_limit",
)

# Largest sizes that are believed, in a config here as in a `config.json`: a thousand times those of today's models.
LARGEST = {
    "layers": 1 << 12,
    "width": 1 << 20,
    "feed_forward": 1 << 23,
    "experts": 1 << 12,
    "expert_width": 1 << 23,
    "heads": 1 << 16,
    "kv_heads": 1 << 16,
    "full_kv_heads": 1 << 16,
    "head_dim": 1 << 16,
    "full_head_dim": 1 << 16,
    "sharing_feed_forward": 1 << 23,
    "layer_input": 1 << 16,
    "layer_input_vocab": 1 << 24,
    "vocab_size": 1 << 24,
    "window": 1 << 31,
}

# Sizes, and those that may be null.
_SIZES = ("layers", "width", "feed_forward", "heads", "kv_heads")
_OPTIONAL_SIZES = (
    "head_dim",
    "full_head_dim",
    "full_kv_heads",
    "sharing_feed_forward",
    "expert_width",
    "layer_input_vocab",
    "vocab_size",
    "window",
)


def check_numbers(model: object) -> None:
    """Raises InputError for a size of a `ModelConfig` that no decoder can have, or a factor that is not above 0."""
    for name in _SIZES:
        if getattr(model, name) < 1:
            raise InputError(f"model.{name}: {getattr(model, name)} is less than 1")
    for name in _OPTIONAL_SIZES:
        if getattr(model, name) is not None and getattr(model, name) < 1:
            raise InputError(f"model.{name}: {getattr(model, name)} is less than 1; null stands for none given")
    for name, most in LARGEST.items():
        if (getattr(model, name) or 0) > most:
            raise InputError(f"model.{name}: {getattr(model, name)} is more than {most}, the most that is allowed")
    for name in _POSITIVE:
        value = getattr(model, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"model.{name}: {value} is not a number above 0")


def check_layers(model: Any) -> None:
    """Raises InputError for layers of a `ModelConfig` that there are not, and for heads that do not divide."""
    if model.shared_expert and not (model.experts and model.expert_width):
        raise InputError("model.shared_expert: there are no experts beside it; set model.experts and expert_width")
    named = {"sliding_layers": model.sliding_layers, "nope_layers": model.nope_layers}
    for name, layers in {**named, "linear.layers": model.linear.layers}.items():
        for layer in layers or ():
            if not 0 <= layer < model.layers:
                raise InputError(f"model.{name}: there is no layer {layer}; they are 0 to {model.layers - 1}")
    for name in ("kv_heads", "full_kv_heads"):
        count = getattr(model, name) or 1
        if model.heads % count:
            raise InputError(f"model.heads: {model.heads} heads do not divide into {count} key/value heads")
    if model.linear.layers and model.sharing_layers:
        raise InputError("model.sharing_layers: not beside layers that keep a state (model.linear.layers); set it to 0")
    own = model.layers - model.sharing_layers
    if model.sharing_layers < 0 or own < 1:
        raise InputError(
            f"model.sharing_layers: {model.sharing_layers} of {model.layers} layers; choose from 0 to all but one"
        )
    slide = [model.slides(layer) for layer in range(model.layers)]
    if not {*slide[own:]} <= {*slide[:own]}:
        raise InputError(
            f"model.sharing_layers: of the last {model.sharing_layers} layers some slide, or some do not, and none "
            "before them does so, whose keys and values they could share; take fewer"
        )
    if model.layer_input < 0:
        raise InputError(f"model.layer_input: {model.layer_input} is less than 0; 0 stands for none")
