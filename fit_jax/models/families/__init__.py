"""The families a decoder can be loaded from: Hugging Face configs both ways, and their tensor names.

A family is a module of this package with `FAMILY`, under its `model_type`; `fit_jax.models.config.Family` lists them.
"""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, quoted
from fit_jax.models.config import DecoderConfig, Family
from fit_jax.models.families import names
from fit_jax.models.families.family import ATTENTION_BIAS, LIMIT, MOST_TOKENS, FamilyTraits, Source
from fit_jax.models.families.names import LAYER_PREFIX, tensor_sources
from fit_jax.models.families.quantization_fields import Quantization, read_quantization
from fit_jax.models.families.rotary_fields import read_ropes, rope_scaling
from fit_jax.models.families.text_part import TextPart, text_name, text_part
from fit_jax.models.families.unknown import unknown_family
from fit_jax.models.limits import LARGEST
from fit_jax.plugins import load_plugin, plugin_names

__all__ = [
    "LAYER_PREFIX",
    "QUANTIZATION",
    "FamilyTraits",
    "Source",
    "config_from_hf",
    "config_to_hf",
    "family_traits",
    "leading_axes",
    "position_limit",
    "quantization",
    "sources",
    "text_name",
    "text_of",
    "without_unread",
]

QUANTIZATION = "quantization_config"
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_WRITTEN_ACTIVATIONS = {ours: theirs for theirs, ours in _ACTIVATIONS.items()} | {"clamped_swiglu": "silu"}
# Sizes that every config gives, and the largest that is believed.
_SIZES = {
    "hidden_size": LARGEST["width"],
    "num_hidden_layers": LARGEST["layers"],
    "num_attention_heads": LARGEST["heads"],
    "intermediate_size": LARGEST["feed_forward"],
    "vocab_size": LARGEST["vocab_size"],
}
# Config fields that change what the model computes, and the values for which this decoder computes it too. Where
# attention both ways is for `vision`, it is for tokens of images.
_ONLY = {"mlp_bias": (False,), "use_bidirectional_attention": (False, "vision")}
# Tokens of generation, which an export hands on: an id or, of the ends, several; -1 stands for none in old configs.
_TOKENS, _LARGEST_TOKEN = ("bos_token_id", "eos_token_id", "pad_token_id"), 2**31 - 1


def config_from_hf(hf: Mapping[str, object], where: str) -> DecoderConfig:
    """The decoder that a parsed `config.json` describes; dtypes and run settings stay at their defaults.

    Args:
        hf: The parsed file, as transformers 4 or 5 writes it.
        where: Path, for error messages.

    Raises:
        InputError: An unknown family, a missing field, or a setting that the decoder does not have.
    """
    named = hf.get("model_type")
    own = () if named in get_args(Family) else plugin_names("families")
    family = next((known for known in (*get_args(Family), *own) if known == named), None)
    if family is None:
        raise unknown_family(hf, where, (*get_args(Family), *own))
    traits = family_traits(family)
    for name, only in {**_ONLY, **({} if ATTENTION_BIAS in traits.defaults else {ATTENTION_BIAS: (False,)})}.items():
        if hf.get(name) not in (*only, None):
            raise InputError(f"{where}: {name} {quoted(hf[name])} is not supported; only {only[0]!r} is")
    quantization(hf, where)
    fields = Fields({**traits.defaults, **hf}, where)
    if missing := [name for name in _SIZES if not fields.has(name)]:
        raise InputError(f"{where}: lacks {', '.join(missing)}; it is no complete config of a {family} model")
    width, layers, heads, feed_forward, vocab_size = (fields.whole(name, 1, most) for name, most in _SIZES.items())
    _check_activation(family, fields, traits)
    fields.whole(LIMIT, 1, MOST_TOKENS, traits.defaults[LIMIT])  # which `position_limit` gives to who asks
    for name in _TOKENS:
        given = hf.get(name)
        each = {name: given} if not isinstance(given, list) else {f"{name}[{n}]": one for n, one in enumerate(given)}
        for key in each:
            Fields(each, where).whole(key, -1, _LARGEST_TOKEN, -1)
    found = traits.read(fields, layers)
    rope, sliding_theta = read_ropes(fields, traits)
    values: dict[str, Any] = {
        **traits.switches,
        "kv_heads": fields.whole("num_key_value_heads", 1, heads, heads),
        "head_dim": fields.whole("head_dim", 1, LARGEST["head_dim"], max(width // heads, 1)),
        "tied": fields.flag("tie_word_embeddings"),
        "norm_epsilon": fields.number("rms_norm_eps", 0, 1, 1e-6),
        "rope": rope,
        "sliding_theta": sliding_theta if found.get("window") else None,
        "feed_forward": feed_forward,
        **found,
    }
    config = DecoderConfig(family=family, layers=layers, width=width, heads=heads, vocab_size=vocab_size, **values)
    try:
        config.check()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return config


def quantization(hf: Mapping[str, Any], where: str) -> Quantization | None:
    """How the weights are stored that a `config.json` of a known family describes; None where they are plain.

    Raises:
        InputError: In a form that is not read.
    """
    if (stored := hf.get(QUANTIZATION)) is None:
        return None
    return read_quantization(stored, f"{where}: {QUANTIZATION}", family_traits(hf["model_type"]).packed)


def text_of(hf: Mapping[str, object], where: str) -> TextPart:
    """The config that a text model would have alone, of a checkpoint that may hold other encoders; errors as there."""
    part = text_part(hf, where, (*get_args(Family), *plugin_names("families")))
    if part.left_out:
        part.hf["architectures"] = [family_traits(part.hf["model_type"]).architecture]
    return part


def config_to_hf(config: DecoderConfig, *, max_positions: int, tokens: Mapping[str, object]) -> dict[str, Any]:
    """The `config.json` of a decoder; `config_from_hf` gives its shape and switches back.

    The fields are those that both transformers 4 and 5 read.

    Args:
        config: The decoder.
        max_positions: Longest sequence it is meant for.
        tokens: `bos_token_id`, `eos_token_id` and `pad_token_id`.
    """
    traits = family_traits(config.family)
    hf: dict[str, Any] = {
        "architectures": [traits.architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        traits.activation_field: _WRITTEN_ACTIVATIONS[config.activation],
        LIMIT: max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        **tokens,
    }
    if traits.flat_rope:
        hf |= {"rope_theta": config.rope.theta, "rope_scaling": rope_scaling(config.rope)}
    if "head_dim" in traits.defaults or config.head_width * config.heads != config.width:
        hf["head_dim"] = config.head_width  # some families know only the derived width
    return {**hf, **traits.write(config)}


def position_limit(family: str, hf: Mapping[str, object]) -> int:
    """Most tokens a model of the family reads: what its `config.json` says, or else transformers' default."""
    return Fields(hf, "config.json").whole(LIMIT, 1, MOST_TOKENS, family_traits(family).defaults[LIMIT])


def leading_axes(path: str, config: DecoderConfig) -> int:
    """The axes of a parameter along which its Hugging Face tensors are stacked, as `names.leading_axes`."""
    return names.leading_axes(path, config, family_traits(config.family))


def sources(path: str, config: DecoderConfig) -> list[Source]:
    """The Hugging Face tensors that a parameter is made of, in order, as `tensor_sources`."""
    return tensor_sources(path, config, family_traits(config.family))


def without_unread(names: Iterable[str], config: DecoderConfig) -> list[str]:
    """The names but those of tensors that such a model's checkpoints may hold, and that this decoder does not read."""
    traits = family_traits(config.family)
    unread = frozenset(traits.unread(config))
    return [name for name in names if name not in unread and not name.startswith(traits.unread_from)]


def family_traits(family: str) -> FamilyTraits:
    """What sets a family apart, of this package or of another one.

    Raises:
        InputError: It is a broken one of another package.
    """
    if family in get_args(Family):
        return importlib.import_module(f"fit_jax.models.families.{family}").FAMILY
    traits = load_plugin("families", family, "FAMILY").FAMILY
    if not isinstance(traits, FamilyTraits) or LIMIT not in traits.defaults:
        raise InputError(
            f"the model family {family} of another package: its FAMILY is no FamilyTraits with a default for {LIMIT}; "
            "fix or uninstall the package"
        )
    return traits


def _check_activation(family: str, fields: Fields, traits: FamilyTraits) -> None:
    name, expected = traits.activation_field, traits.switches.get("activation", "silu")
    if fields.has(name) and _ACTIVATIONS[fields.choice(name, _ACTIVATIONS)] != expected:
        raise fields.error(name, fields.values[name], f"not what {family} has")
