"""The families a decoder can be loaded from: Hugging Face configs both ways, and their tensor names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fit_jax.errors import InputError
from fit_jax.models.config import DecoderConfig, Family, RopeConfig


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
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
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
    family = hf.get("model_type")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InputError(f"{where}: model_type {family!r} is not supported; supported: {', '.join(_FAMILIES)}")
    if missing := [name for name in _REQUIRED if hf.get(name) is None]:
        raise InputError(f"{where}: lacks {', '.join(missing)}; it is no complete config of a {family} model")
    for name in _REQUIRED:
        if not isinstance(hf[name], int) or hf[name] < 1:
            raise InputError(f"{where}: {name} {hf[name]!r} is no number above 0; fetch the file again")
    for name, only in _ONLY.items():
        if hf.get(name, only) not in (only, None):
            raise InputError(f"{where}: {name} {hf[name]!r} is not supported; only {only!r} is")
    traits = _FAMILIES[family]
    given = {**traits.defaults, **hf}
    activation = given.get("hidden_activation") or (given.get("hidden_act") if family[:5] != "gemma" else None)
    expected = traits.switches.get("activation", "silu")
    if activation is not None and _ACTIVATIONS.get(activation) != expected:
        raise InputError(f"{where}: activation {activation!r} is not supported for {family}")
    layers, window = given["num_hidden_layers"], _window(family, given)
    sliding = _sliding_layers(family, given) if window is not None else ()
    try:
        full, local = _ropes(given, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: its RoPE settings are malformed ({error}); fetch the file again") from error
    return DecoderConfig(
        **traits.switches,
        family=family,
        layers=layers,
        width=given["hidden_size"],
        feed_forward=given["intermediate_size"],
        heads=given["num_attention_heads"],
        kv_heads=given.get("num_key_value_heads") or given["num_attention_heads"],
        head_dim=given.get("head_dim") or given["hidden_size"] // given["num_attention_heads"],
        vocab_size=given["vocab_size"],
        tied=bool(given.get("tie_word_embeddings", False)),
        norm_epsilon=given.get("rms_norm_eps", 1e-6),
        rope=full,
        sliding_theta=local,
        window=window if sliding else None,
        sliding_layers=None if len(sliding) in (0, layers) else sliding,
        query_scale=given.get("query_pre_attn_scalar"),
        attention_softcap=given.get("attn_logit_softcapping"),
        logit_softcap=given.get("final_logit_softcapping"),
    )


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
    return hf.get(_LIMIT) or _FAMILIES[family].defaults[_LIMIT]


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


def _window(family: str, given: Mapping[str, Any]) -> int | None:
    if family == "llama" or (family.startswith("qwen") and not given.get("use_sliding_window", False)):
        return None
    return given.get("sliding_window")


def _sliding_layers(family: str, given: Mapping[str, Any]) -> tuple[int, ...]:
    layers = range(given["num_hidden_layers"])
    if kinds := given.get("layer_types"):
        return tuple(layer for layer in layers if kinds[layer] == "sliding_attention")
    if family.startswith("qwen"):
        return tuple(layers[given["max_window_layers"] :])
    if family == "gemma2":
        return tuple(layers[::2])
    if family == "gemma3_text":
        return tuple(layer for layer in layers if (layer + 1) % given["sliding_window_pattern"])
    return tuple(layers)


def _ropes(given: Mapping[str, Any], where: str) -> tuple[RopeConfig, float | None]:
    """RoPE of full layers, and the theta of sliding layers where it is one of their own."""
    new = given.get("rope_parameters")
    if new is None:
        theta = given.get("rope_theta") or 10000.0
        return _rope(theta, given.get("rope_scaling") or {}, where), given.get("rope_local_base_freq")
    if "full_attention" not in new:
        return _rope(new["rope_theta"], new, where), None
    full, local = new["full_attention"], new["sliding_attention"]
    if _rope(local["rope_theta"], local, where).kind != "default":
        raise InputError(f"{where}: scaled RoPE in sliding layers is not supported")
    return _rope(full["rope_theta"], full, where), local["rope_theta"]


def _rope(theta: float, scaling: Mapping[str, Any], where: str) -> RopeConfig:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, kind="linear", factor=scaling["factor"])
    if kind == "llama3":
        return RopeConfig(
            theta=theta,
            kind="llama3",
            factor=scaling["factor"],
            low_freq_factor=scaling["low_freq_factor"],
            high_freq_factor=scaling["high_freq_factor"],
            original_max_positions=scaling["original_max_position_embeddings"],
        )
    raise InputError(f"{where}: RoPE type {kind!r} is not supported; supported: default, linear, llama3")


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
