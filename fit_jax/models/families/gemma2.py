"""Gemma 2: norms before and after each sublayer, capped scores and logits, every second layer slides."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_optional, read_window, write_window

SWITCHES = {"post_norms": True, "norm_offset": True, "embed_scale": True, "activation": "gelu_tanh"}
DEFAULTS = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": True}


def read_scales(fields: Fields) -> dict[str, Any]:
    """The scale of the scores and the caps."""
    return {
        "query_scale": read_optional(fields, "query_pre_attn_scalar"),
        "attention_softcap": read_optional(fields, "attn_logit_softcapping"),
        "logit_softcap": read_optional(fields, "final_logit_softcapping"),
    }


def write(config: DecoderConfig) -> dict[str, Any]:
    """The window, the scale of the scores and the caps."""
    return {
        **write_window(config),
        "query_pre_attn_scalar": config.query_scale,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
    }


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    return {**read_window(fields, layers, lambda layer: layer % 2 == 0), **read_scales(fields)}


FAMILY = FamilyTraits(
    "Gemma2ForCausalLM",
    {**DEFAULTS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, LIMIT: 8192},
    SWITCHES,
    read=_read,
    write=write,
    activation_field="hidden_activation",
)
