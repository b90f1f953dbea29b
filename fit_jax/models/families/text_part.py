"""Checkpoints that hold other encoders beside a text model, as Gemma 3 and Mistral 3 do: their text part alone."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fit_jax.foreign import Fields

# What such a config says of its text, for which it has no section of its own.
_SHARED = (
    "dtype",
    "torch_dtype",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
    "quantization_config",
)
# Where its tensors lie, and where those of the text model alone do.
_MOVED = (("language_model.", ""), ("model.language_model.", "model."), ("lm_head.", "lm_head."))


class TextPart(NamedTuple):
    """A config of a text model.

    Attributes:
        hf: Its `config.json`.
        left_out: What else the checkpoint holds that it came from, other encoders first; empty where it came alone.
    """

    hf: dict[str, Any]
    left_out: tuple[str, ...] = ()


def text_part(hf: Mapping[str, object], where: str, known: Iterable[str]) -> TextPart:
    """The config of a checkpoint's text model.

    Args:
        hf: The parsed `config.json`.
        where: Path, for error messages.
        known: Names of families; a text model of another one, or a config that is one of them, stays as it is.

    Raises:
        InputError: The section of the text is no object of fields.
    """
    names = list(known)
    text = None if hf.get("model_type") in names else Fields(hf, where).section("text_config")
    if text is None or text.values.get("model_type") not in names:
        return TextPart(dict(hf))
    own = dict(text.values)
    own |= {name: hf[name] for name in _SHARED if own.get(name) is None and hf.get(name) is not None}
    towers = {name for name, value in hf.items() if name.endswith("_config") and isinstance(value, Mapping)}
    left_out = sorted(name.removesuffix("_config") for name in towers - {"text_config", "quantization_config"})
    left_out += ["layers that predict further tokens"] if text.values.get("mtp_num_hidden_layers") else []
    return TextPart(own, tuple(left_out))


def text_name(name: str) -> str | None:
    """The name in the text model of a tensor in such a checkpoint; None of another tower's."""
    for before, after in _MOVED:
        if name.startswith(before):
            return after + name.removeprefix(before)
    return None
