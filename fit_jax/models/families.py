"""The families a decoder can be loaded from: Hugging Face configs both ways, and their tensor names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, quoted
from fit_jax.models.config import LARGEST, DecoderConfig, Family, RopeConfig


@dataclass(frozen=True)
class _Traits:
    """What sets a family apart.

    Attributes:
        architecture: Class name in `architectures`.
        defaults: Config fields that a config.json of this family may leave out.
        switches: What the family fixes in `DecoderConfig`.
    """

    architecture: str
    defaults: dict[str, Any] = field(default_factory=dict)
    switches: dict[str, Any] = field(default_factory=dict)


_GEMMA = {"post_norms": True, "norm_offset": True, "embed_scale": True, "activation": "gelu_tanh"}
_LIMIT = "max_position_embeddings"
_GEMMA_DEFAULTS = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096, "tie_word_embeddings": True}
_FAMILIES: dict[Family, _Traits] = {
    "llama": _Traits("LlamaForCausalLM", {_LIMIT: 2048}),
    "mistral": _Traits("MistralForCausalLM", {"sliding_window": 4096, _LIMIT: 131072}),
    "qwen2": _Traits(
        "Qwen2ForCausalLM",
        {"sliding_window": 4096, "max_window_layers": 28, _LIMIT: 32768},
        {"qkv_bias": True},
    ),
    "qwen3": _Traits(
        "Qwen3ForCausalLM",
        {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128, _LIMIT: 32768},
        {"qk_norm": True},
    ),
    "gemma2": _Traits(
        "Gemma2ForCausalLM",
        {**_GEMMA_DEFAULTS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, _LIMIT: 8192},
        _GEMMA,
    ),
    "gemma3_text": _Traits(
        "Gemma3ForCausalLM",
        {
            **_GEMMA_DEFAULTS,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "sliding_window_pattern": 6,
            _LIMIT: 131072,
        },
        {**_GEMMA, "qk_norm": True},
    ),
}
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
# Sizes that every config gives, and the largest that is believed.
_SIZES = {
    "hidden_size": LARGEST["width"],
    "num_hidden_layers": LARGEST["layers"],
    "num_attention_heads": LARGEST["heads"],
    "intermediate_size": LARGEST["feed_forward"],
    "vocab_size": LARGEST["vocab_size"],
}
_MOST_TOKENS = 1 << 31
_LARGEST = 1e12
# Config fields that change what the model computes, and the only value for which this decoder computes it too.
_ONLY = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_bidirectional_attention": False,
    "quantization_config": None,
}


def config_from_hf(hf: Mapping[str, Any], where: str) -> DecoderConfig:
    """The decoder that a parsed `config.json` describes; dtypes and run settings stay at their defaults.

    Args:
        hf: The parsed file, as transformers 4 or 5 writes it.
        where: Path, for error messages.

    Raises:
        InputError: An unknown family, a missing field, or a setting that the decoder does not have.
    """
    fields = Fields(hf, where)
    family = fields.choice("model_type", _FAMILIES)
    if missing := [name for name in _SIZES if not fields.has(name)]:
        raise InputError(f"{where}: lacks {', '.join(missing)}; it is no complete config of a {family} model")
    for name, only in _ONLY.items():
        if hf.get(name, only) not in (only, None):
            raise InputError(f"{where}: {name} {quoted(hf[name])} is not supported; only {only!r} is")
    traits = _FAMILIES[family]
    fields = Fields({**traits.defaults, **hf}, where)
    width, layers, heads, feed_forward, vocab_size = (fields.whole(name, 1, most) for name, most in _SIZES.items())
    _check_activation(family, fields, traits.switches.get("activation", "silu"))
    window = _window(family, fields)
    sliding = _sliding_layers(family, fields, layers) if window is not None else ()
    full, local = _ropes(fields)
    config = DecoderConfig(
        **traits.switches,
        family=family,
        layers=layers,
        width=width,
        feed_forward=feed_forward,
        heads=heads,
        kv_heads=fields.whole("num_key_value_heads", 1, heads, heads),
        head_dim=fields.whole("head_dim", 1, LARGEST["head_dim"], max(width // heads, 1)),
        vocab_size=vocab_size,
        tied=fields.flag("tie_word_embeddings"),
        norm_epsilon=fields.number("rms_norm_eps", 0, 1, 1e-6),
        rope=full,
        sliding_theta=local,
        window=window if sliding else None,
        sliding_layers=None if len(sliding) in (0, layers) else sliding,
        query_scale=_optional(fields, "query_pre_attn_scalar"),
        attention_softcap=_optional(fields, "attn_logit_softcapping"),
        logit_softcap=_optional(fields, "final_logit_softcapping"),
    )
    try:
        config.check()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return config


def config_to_hf(config: DecoderConfig, *, max_positions: int, tokens: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of a decoder; `config_from_hf` gives its shape and switches back.

    The fields are those that both transformers 4 and 5 read.

    Args:
        config: The decoder.
        max_positions: Longest sequence it is meant for.
        tokens: `bos_token_id`, `eos_token_id` and `pad_token_id`.
    """
    family, rope = config.family, config.rope
    hf: dict[str, Any] = {
        "architectures": [_FAMILIES[family].architecture],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "hidden_act": "silu" if config.activation == "silu" else "gelu_pytorch_tanh",
        _LIMIT: max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        "rope_theta": rope.theta,
        "rope_scaling": _rope_scaling(rope),
        **tokens,
    }
    if family != "qwen2" or config.head_width * config.heads != config.width:  # Qwen 2 knows only the derived width
        hf["head_dim"] = config.head_width
    if family != "llama":
        hf["sliding_window"] = config.window
    if family in ("qwen2", "qwen3"):
        hf["use_sliding_window"] = config.window is not None
    if family not in ("llama", "mistral"):
        kinds = ("full_attention", "sliding_attention")
        hf["layer_types"] = [kinds[config.slides(layer)] for layer in range(config.layers)]
    if family in ("gemma2", "gemma3_text"):
        hf["hidden_activation"] = hf.pop("hidden_act")
        hf["query_pre_attn_scalar"] = config.query_scale
        hf["attn_logit_softcapping"] = config.attention_softcap
        hf["final_logit_softcapping"] = config.logit_softcap
    if family == "gemma3_text":
        hf["rope_local_base_freq"] = config.sliding_theta
    return hf


def position_limit(family: Family, hf: Mapping[str, Any]) -> int:
    """Most tokens a model of the family reads: what its `config.json` says, or else transformers' default."""
    return Fields(hf, "config.json").whole(_LIMIT, 1, _MOST_TOKENS, _FAMILIES[family].defaults[_LIMIT])


class Source(NamedTuple):
    """Where a parameter's entries of one layer come from: a tensor's name, and whether it is stored transposed."""

    name: str
    transposed: bool


_WHOLE = {
    "embed.embedding": Source("model.embed_tokens.weight", False),
    "final_norm.scale": Source("model.norm.weight", False),
    "lm_head.kernel": Source("lm_head.weight", True),
}
_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
_POST_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}
LAYER_PREFIX = "model.layers."


def sources(path: str, config: DecoderConfig) -> list[Source]:
    """The Hugging Face tensors that a parameter is made of: one, or for a stacked parameter one a layer, in order."""
    if path in _WHOLE:
        return [_WHOLE[path]]
    part, _, rest = path.partition(".")
    layers = range(config.layers - 1) if part == "blocks" else (config.layers - 1,)
    module, _, leaf = rest.rpartition(".")
    if module.startswith("attention."):
        module = module.replace("attention.", "self_attn.", 1)
    else:
        module = (_POST_NORMS if config.post_norms else _NORMS).get(module, module)
    name = f"{module}.{'bias' if leaf == 'bias' else 'weight'}"
    return [Source(f"{LAYER_PREFIX}{layer}.{name}", leaf == "kernel") for layer in layers]


def _optional(fields: Fields, name: str) -> float | None:
    """A number above 0, or None where there is none."""
    return fields.number(name, 0, _LARGEST) if fields.has(name) else None


def _check_activation(family: str, fields: Fields, expected: str) -> None:
    name = "hidden_activation"
    if not fields.has(name) and not family.startswith("gemma"):
        name = "hidden_act"
    if fields.has(name) and _ACTIVATIONS[fields.choice(name, _ACTIVATIONS)] != expected:
        raise fields.error(name, fields.values[name], f"not what {family} has")


def _window(family: str, fields: Fields) -> int | None:
    if family == "llama" or (family.startswith("qwen") and not fields.flag("use_sliding_window")):
        return None
    return fields.whole("sliding_window", 1, LARGEST["window"]) if fields.has("sliding_window") else None


def _sliding_layers(family: str, fields: Fields, count: int) -> tuple[int, ...]:
    layers = range(count)
    if kinds := fields.texts("layer_types"):
        if len(kinds) != count or not {*kinds} <= {"full_attention", "sliding_attention"}:
            raise fields.error("layer_types", kinds, f"no list of {count} kinds of attention")
        return tuple(layer for layer in layers if kinds[layer] == "sliding_attention")
    if family.startswith("qwen"):
        return tuple(layers[fields.whole("max_window_layers", 0, _MOST_TOKENS) :])
    if family == "gemma2":
        return tuple(layers[::2])
    if family == "gemma3_text":
        pattern = fields.whole("sliding_window_pattern", 1, _MOST_TOKENS)
        return tuple(layer for layer in layers if (layer + 1) % pattern)
    return tuple(layers)


def _ropes(fields: Fields) -> tuple[RopeConfig, float | None]:
    """RoPE of full layers, and the theta of sliding layers where it is one of their own."""
    new = fields.section("rope_parameters")
    if new is None:
        scaling = fields.section("rope_scaling") or Fields({}, fields.where)
        return _rope(fields.number("rope_theta", 0, _LARGEST, 10000.0), scaling), _optional(
            fields, "rope_local_base_freq"
        )
    full, local = new.section("full_attention"), new.section("sliding_attention")
    if full is None:
        return _rope(new.number("rope_theta", 0, _LARGEST), new), None
    if local is None:
        return _rope(full.number("rope_theta", 0, _LARGEST), full), None
    theta = local.number("rope_theta", 0, _LARGEST)
    if _rope(theta, local).kind != "default":
        raise InputError(f"{local.where}: scaled RoPE in sliding layers is not supported")
    return _rope(full.number("rope_theta", 0, _LARGEST), full), theta


def _rope(theta: float, scaling: Fields) -> RopeConfig:
    name = "rope_type" if scaling.has("rope_type") else "type"
    kind = scaling.choice(name, ("default", "linear", "llama3"), "default")
    if kind == "default":
        return RopeConfig(theta=theta)
    factor = scaling.number("factor", 0, _LARGEST)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=factor)
    return RopeConfig(
        theta=theta,
        kind="llama3",
        factor=factor,
        low_freq_factor=scaling.number("low_freq_factor", 0, _LARGEST),
        high_freq_factor=scaling.number("high_freq_factor", 0, _LARGEST),
        original_max_positions=scaling.whole("original_max_position_embeddings", 1, _MOST_TOKENS),
    )


def _rope_scaling(rope: RopeConfig) -> dict[str, Any] | None:
    if rope.kind == "default":
        return None
    if rope.kind == "linear":
        return {"rope_type": "linear", "factor": rope.factor}
    return {
        "rope_type": "llama3",
        "factor": rope.factor,
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": rope.original_max_positions,
    }
