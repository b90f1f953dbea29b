"""Granite 3, dense: Llama with factors on embeddings, sublayers, attention scores and logits."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LARGEST_NUMBER, LIMIT, FamilyTraits

_FACTORS = {
    "embed_multiplier": "embedding_multiplier",
    "residual_multiplier": "residual_multiplier",
    "attention_multiplier": "attention_multiplier",
    "logit_divisor": "logits_scaling",
}


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    return {ours: fields.number(theirs, 0, LARGEST_NUMBER, 1.0) for ours, theirs in _FACTORS.items()}


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {
        **{theirs: getattr(config, ours) for ours, theirs in _FACTORS.items()},
        "attention_multiplier": config.score_scale(config.kind(0)),
    }


FAMILY = FamilyTraits("GraniteForCausalLM", {LIMIT: 2048}, read=_read, write=_write)
