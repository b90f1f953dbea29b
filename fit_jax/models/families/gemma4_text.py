"""Gemma 4, text: layers that slide and layers that do not have heads and key/value heads of their own.

The dense models' full layers take their keys as values. E2B and E4B read embeddings of each layer's own, and their last
layers share the keys and values of earlier ones. 26B-A4B has a mixture of experts beside each feed-forward part.
"""

from collections.abc import Iterator
from typing import Any

from fit_jax.foreign import Fields
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import LIMIT, FamilyTraits, read_optional, read_window, write_window
from fit_jax.models.families.rotary_fields import rope_scaling
from fit_jax.models.limits import LARGEST

_PER_LAYER = "per_layer_config"
_HEADS = ("head_dim", "num_key_value_heads")


def _read(fields: Fields, layers: int) -> dict[str, Any]:
    window = read_window(fields, layers, lambda layer: bool((layer + 1) % 6))
    # The last layer never slides, whatever `layer_types` says.
    sliding = [layer for layer in window.get("sliding_layers") or range(layers - 1) if layer < layers - 1]
    window = {"window": window["window"], "sliding_layers": tuple(sliding)} if window and sliding else {}
    keys_as_values = fields.flag("attention_k_eq_v")
    base = {
        "full_head_dim": fields.whole("head_dim", 1, LARGEST["head_dim"], 256),
        "full_kv_heads": fields.whole("num_key_value_heads", 1, LARGEST["kv_heads"], 4),
    }
    heads = {"full_head_dim": fields.whole("global_head_dim", 1, LARGEST["head_dim"])}
    if keys_as_values and fields.has("num_global_key_value_heads"):
        heads["full_kv_heads"] = fields.whole("num_global_key_value_heads", 1, LARGEST["kv_heads"])
    if fields.has(_PER_LAYER):
        full = [layer for layer in range(layers) if not window or layer not in sliding]
        heads = base | _heads_by_layer(fields, full)
    sharing = fields.whole("num_kv_shared_layers", 0, layers)
    doubled = sharing and fields.flag("use_double_wide_mlp")
    width, vocabulary = (
        fields.whole(f"{size}_per_layer_input", 0, LARGEST[ours], 0)
        for size, ours in (("hidden_size", "layer_input"), ("vocab_size", "layer_input_vocab"))
    )
    return {
        **window,
        "head_dim": base["full_head_dim"],
        **{name: count for name, count in heads.items() if count != base[name]},
        **(_read_experts(fields) if fields.flag("enable_moe_block") else {}),
        "keys_as_values": keys_as_values,
        "sharing_layers": sharing,
        "sharing_feed_forward": 2 * fields.values["intermediate_size"] if doubled else None,
        "layer_input": width,
        "layer_input_vocab": vocabulary if width and vocabulary != fields.values["vocab_size"] else None,
        "logit_softcap": read_optional(fields, "final_logit_softcapping"),
    }


def _read_experts(fields: Fields) -> dict[str, int]:
    experts = fields.whole("num_experts", 1, LARGEST["experts"])
    return {
        "experts": experts,
        "experts_per_token": fields.whole("top_k_experts", 1, experts),
        "expert_width": fields.whole("moe_intermediate_size", 1, LARGEST["expert_width"]),
    }


def _heads_by_layer(fields: Fields, full: list[int]) -> dict[str, int]:
    """Head width and key/value heads of the full layers, where the config tells them layer by layer."""
    given = fields.section(_PER_LAYER) or Fields({}, fields.where)
    by_layer = {str(layer): changes for layer, changes in given.values.items()}
    changed_in = [by_layer.get(str(layer)) for layer in full]
    if not {*by_layer} <= {*map(str, full)} or any(changes != changed_in[0] for changes in changed_in):
        raise fields.error(_PER_LAYER, given.values, "not the same for all full layers, and none for others")
    changed = Fields(by_layer, given.where).section(str(full[0])) or Fields({}, given.where)
    if other := sorted({*changed.values} - {*_HEADS}):
        raise fields.error(_PER_LAYER, other, f"not {' or '.join(_HEADS)}, which alone may differ")
    if changed.has(_HEADS[1]) and not fields.flag("attention_k_eq_v"):
        raise fields.error(_PER_LAYER, _HEADS[1], "not what full layers have without attention_k_eq_v")
    named = zip(("full_head_dim", "full_kv_heads"), _HEADS)
    return {ours: changed.whole(theirs, 1, LARGEST[ours]) for ours, theirs in named if changed.has(theirs)}


def _write(config: DecoderConfig) -> dict[str, Any]:
    full = {"rope_type": "default", **(rope_scaling(config.rope) or {}), "rope_theta": config.rope.theta}
    sliding = {"rope_type": "default", "rope_theta": config.sliding_theta or config.rope.theta}
    return {
        **write_window(config),
        "sliding_window": config.window or 512,  # never null
        "global_head_dim": config.full_head_width,
        "num_global_key_value_heads": config.full_kv_heads,
        "attention_k_eq_v": config.keys_as_values,
        "num_kv_shared_layers": config.sharing_layers,
        "use_double_wide_mlp": config.sharing_feed_forward is not None,
        "hidden_size_per_layer_input": config.layer_input,
        "vocab_size_per_layer_input": config.layer_input_vocab or config.vocab_size,
        "enable_moe_block": config.experts > 0,
        "num_experts": config.experts or None,
        "top_k_experts": config.experts_per_token if config.experts else None,
        "moe_intermediate_size": config.expert_width,
        "final_logit_softcapping": config.logit_softcap,
        "rope_parameters": {"full_attention": full, "sliding_attention": sliding},
    }


def _unread(config: DecoderConfig) -> Iterator[str]:
    """What published files hold for the keys and values of layers that share those of others."""
    for layer in range(config.layers - config.sharing_layers, config.layers):
        for module in ("k_proj", "v_proj", "k_norm", "v_norm"):
            yield f"model.layers.{layer}.self_attn.{module}.weight"


FAMILY = FamilyTraits(
    "Gemma4ForCausalLM",
    {
        LIMIT: 131072,
        "vocab_size": 262144,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144,
        "num_kv_shared_layers": 0,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    },
    {
        "post_norms": True,
        "qk_norm": True,
        "value_norm": True,
        "layer_scale": True,
        "embed_scale": True,
        "attention_multiplier": 1.0,
        "activation": "gelu_tanh",
    },
    read=_read,
    write=_write,
    activation_field="hidden_activation",
    rope_kinds={"default": "default", "proportional": "proportional"},
    flat_rope=False,
    experts={
        "router": "router.proj",
        "gate_proj": "experts.gate_up_proj",
        "up_proj": "experts.gate_up_proj",
        "down_proj": "experts.down_proj",
    },
    experts_turned=True,
    unread=_unread,
)
