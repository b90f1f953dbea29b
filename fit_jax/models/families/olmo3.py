"""OLMo 3: OLMo 2 whose layers slide but every fourth; the scaling of the rotary embedding is of full layers alone."""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_window, write_window
from fit_jax.models.families.olmo2 import SWITCHES
from fit_jax.models.families.rotary_fields import rope_scaling

_THETA = 5e5


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    return read_window(fields, layers, lambda layer: bool((layer + 1) % 4))


def _write(config: DecoderConfig) -> dict[str, Any]:
    full = {"rope_type": "default", **(rope_scaling(config.rope) or {}), "rope_theta": config.rope.theta}
    sliding = {"rope_type": "default", "rope_theta": config.sliding_theta or config.rope.theta}
    return {
        **write_window(config),
        "rope_parameters": {"full_attention": full, "sliding_attention": sliding},
    }


# Sliding layers of an older config turn by the usual theta, whatever it says of the others.
FAMILY = FamilyTraits(
    "Olmo3ForCausalLM",
    {
        "rope_theta": _THETA,
        "rope_local_base_freq": _THETA,
        "sliding_window": 4096,
        "rms_norm_eps": 1e-5,
        LIMIT: 2048,
    },
    SWITCHES,
    read=_read,
    write=_write,
)
