"""Qwen3-Next: Qwen 3.5's mixtures of experts in an earlier form, where one projection gives all parts of a head."""

from dataclasses import replace
from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families import qwen3_5_moe_text, qwen3_moe


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    qwen3_moe.check_all_layers(fields)
    found = qwen3_5_moe_text.read(fields, layers)
    linear = found["linear"]
    return {
        **found,
        "linear": replace(linear, by_head=bool(linear.layers)),
        "normalize_router": fields.flag("norm_topk_prob"),
    }


def _write(config: DecoderConfig) -> dict[str, Any]:
    written = qwen3_5_moe_text.write(config)
    del written["rope_parameters"]  # it is told in the fields that transformers 4 reads too
    return {**written, "partial_rotary_factor": config.rope.partial, "norm_topk_prob": config.normalize_router}


FAMILY = replace(
    qwen3_5_moe_text.FAMILY,
    architecture="Qwen3NextForCausalLM",
    defaults={
        **qwen3_5_moe_text.FAMILY.defaults,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
    },
    read=_read,
    write=_write,
    flat_rope=True,
    shared_by_parameter=True,
)
