"""Qwen 3.5's mixtures of experts, text: Qwen3.5-35B-A3B, 122B-A10B and 397B-A17B.

Layers are those of the dense models, but for their feed-forward parts: experts beside one that all tokens share. The
files that its makers publish hold all experts of a layer in one tensor, and those that transformers writes each by
itself.
"""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families import mixtral, qwen3_5_text
from fit_jax.models.families.family import FamilyTraits
from fit_jax.models.limits import LARGEST

_SHARED, _OWN = "shared_expert_intermediate_size", "moe_intermediate_size"


def read(fields: Fields, layers: int) -> dict[str, Any]:
    """Layers of both kinds and the experts; errors as of the dense models."""
    return {
        **qwen3_5_text.read(fields, layers),
        **mixtral.read_experts(fields, 256),
        "feed_forward": fields.whole(_SHARED, 1, LARGEST["feed_forward"]),
        "expert_width": fields.whole(_OWN, 1, LARGEST["expert_width"]),
    }


def write(config: DecoderConfig) -> dict[str, Any]:
    """Layers of both kinds and the experts."""
    return {
        **qwen3_5_text.write(config),
        **mixtral.write_experts(config, "num_experts"),
        _SHARED: config.feed_forward,
        _OWN: config.expert_width,
    }


FAMILY = FamilyTraits(
    "Qwen3_5MoeForCausalLM",
    {
        **qwen3_5_text.FAMILY.defaults,
        "num_key_value_heads": 2,
        "intermediate_size": 512,  # of which these configs say nothing, since no layer has another width
        "num_experts_per_tok": 8,
        _OWN: 512,
        _SHARED: 512,
    },
    {**qwen3_5_text.FAMILY.switches, "shared_expert": True},
    read=read,
    write=write,
    partial_rotary=True,
    flat_rope=False,
    unread_from=("mtp.",),
)
