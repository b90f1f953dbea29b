"""gpt-oss: a mixture of experts with biases everywhere, attention sinks, and every other layer sliding.

Its router takes the softmax of the experts that it chose, which is that of all of them divided by the chosen ones' sum.
"""

from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families import mixtral
from fit_jax.models.families.family import (
    ATTENTION_BIAS,
    LARGEST_NUMBER,
    LIMIT,
    FamilyTraits,
    read_window,
    write_window,
)
from fit_jax.models.families.rotary_fields import rope_scaling


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    biased = fields.flag(ATTENTION_BIAS)
    return {
        **read_window(fields, layers, lambda layer: layer % 2 == 0),
        **mixtral.read_experts(fields, 128),
        "activation": "clamped_swiglu",
        "swiglu_alpha": fields.number("swiglu_alpha", 0, LARGEST_NUMBER),
        "swiglu_limit": fields.number("swiglu_limit", 0, LARGEST_NUMBER),
        "qkv_bias": biased,
        "o_bias": biased,
    }


def _write(config: DecoderConfig) -> dict[str, Any]:
    # Where a config says nothing of the rotary embedding, the family's is scaled.
    rope = {"rope_type": "default", **(rope_scaling(config.rope) or {}), "rope_theta": config.rope.theta}
    return {
        **write_window(config),
        **mixtral.write_experts(config, "num_local_experts"),
        "swiglu_alpha": config.swiglu_alpha,
        "swiglu_limit": config.swiglu_limit,
        ATTENTION_BIAS: config.qkv_bias,
        "rope_parameters": rope,
    }


FAMILY = FamilyTraits(
    "GptOssForCausalLM",
    {
        LIMIT: 131072,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "num_experts_per_tok": 4,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
        ATTENTION_BIAS: True,
        "rope_theta": 150000.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    {"attention_sinks": True, "experts_bias": True},
    read=_read,
    write=_write,
    experts={
        "router": "mlp.router",
        "gate_proj": "mlp.experts.gate_up_proj",
        "up_proj": "mlp.experts.gate_up_proj",
        "down_proj": "mlp.experts.down_proj",
    },
    packed="mxfp4",
)
