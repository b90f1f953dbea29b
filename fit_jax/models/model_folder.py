"""The model that a folder holds, by its configs alone: Hugging Face folders and imported models."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus

from fit_jax.config_files import decode_config
from fit_jax.errors import InputError
from fit_jax.foreign import exists, named, quoted, read_object, shown
from fit_jax.hub import local_folder
from fit_jax.models.config import DecoderConfig, ModelConfig
from fit_jax.models.families import config_from_hf, config_to_hf, quantization, text_of
from fit_jax.models.families.quantization_fields import Quantization

HUB_FILES = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt")
OWN = "fit_jax_model.json"
CONFIG_FILES = ("config.json", OWN)
# Fields of `ModelConfig` that the run decides; all others are the pretrained model's.
RUN_FIELDS = ("pretrained", "dropout", "param_dtype", "compute_dtype", "quantize", "remat", "attention")


@dataclass(frozen=True)
class Pretrained:
    """A model on disk.

    Attributes:
        folder: Where its files lie.
        config: Its shape and switches; an imported model's also says how it is stored.
        hf: The Hugging Face config that it came with.
        own: Whether it is an imported model, stored under our parameters' names, stacked.
        left_out: Other encoders that are stored with it, which are not read; `hf` is then that of the text alone.
    """

    folder: Path
    config: DecoderConfig
    hf: dict[str, Any]
    own: bool
    left_out: tuple[str, ...] = ()

    @property
    def quantization(self) -> Quantization | None:
        """How its files hold quantised weights, as its config says; None where they are plain."""
        return None if self.own else quantization(self.hf, named(self.folder / "config.json"))


def open_pretrained(name: str, files: Sequence[str] = HUB_FILES) -> Pretrained:
    """The model in a folder or on the hub; only its configs are read.

    Args:
        name: Folder or hub id.
        files: What to fetch from the hub.

    Raises:
        InputError: There is no such model, or its config is malformed or describes an unsupported one.
    """
    folder = local_folder(name, files, "model")
    if exists(folder / OWN):
        return _open_own(folder)
    path = folder / "config.json"
    hf, left_out = text_of(read_object(path, "name a folder that holds a model").values, named(path))
    return Pretrained(folder, config_from_hf(hf, named(path)), hf, own=False, left_out=left_out)


def _open_own(folder: Path) -> Pretrained:
    path, remedy = folder / OWN, "import the model again"
    stored = read_object(path, remedy)
    model, hf = stored.section("model"), stored.section("hf")
    if model is None or hf is None or set(model.values) != {f.name for f in dataclasses.fields(DecoderConfig)}:
        raise InputError(f"{named(path)}: is not what this version imports; {remedy}")
    try:
        config = decode_config(DecoderConfig, dict(model.values))
        config_from_hf(hf.values, "hf")  # which an export writes
    except InputError as error:
        raise InputError(f"{named(path)}: {str(error).partition('; ')[0]}; {remedy}") from error
    encoded = draccus.encode(config)
    for name, value in model.values.items():
        if value != encoded[name]:  # such as a number in quotes
            raise InputError(f"{named(path)}: model.{name} {quoted(value)} is not what was imported; {remedy}")
    return Pretrained(folder, config, dict(hf.values), own=True)


def resolve_model(model: ModelConfig) -> ModelConfig:
    """The config with the shape and switches of its pretrained model, if it names one; it is then a `DecoderConfig`.

    Raises:
        InputError: As `open_pretrained`, or the model is stored in another quantised form than the one asked for.
    """
    return model if model.pretrained is None else resolve_pretrained(model, model.pretrained)


def resolve_pretrained(model: ModelConfig, name: str) -> DecoderConfig:
    """The decoder that the model `name` is, with a run's own choices taken from `model`; errors as `resolve_model`."""
    found = open_pretrained(name, CONFIG_FILES)
    kept: dict[str, Any] = {name: getattr(model, name) for name in RUN_FIELDS} | {"pretrained": name}
    if found.config.quantize != "none":
        if model.quantize not in ("none", found.config.quantize):
            raise InputError(
                f"model.quantize {model.quantize}: {named(found.folder)} is stored as {found.config.quantize}; "
                "leave it `none`, or import the model again"
            )
        kept["quantize"] = found.config.quantize
    return dataclasses.replace(found.config, **kept)


def unlike_family(model: DecoderConfig) -> str | None:
    """Why no model of `model.family` can be like this one; None where one can.

    A model from random weights may be of any shape, but is exported as one of its family alone.
    """
    try:
        again = config_from_hf(config_to_hf(model, max_positions=1 << 17, tokens={}), "model")
    except InputError as error:
        return str(error).partition("; ")[0]
    apart = {*RUN_FIELDS, "head_dim", "sliding_layers", "nope_layers"}
    if not model.experts:
        apart |= {"experts_per_token", "normalize_router"}
    names = [f.name for f in dataclasses.fields(model) if f.name not in apart]
    unlike = [name for name in names if getattr(model, name) != getattr(again, name)]
    layers = range(model.layers)
    if [model.slides(n) for n in layers] != [again.slides(n) for n in layers]:
        unlike.append("sliding_layers")
    if [model.rotates(n) for n in layers] != [again.rotates(n) for n in layers]:
        unlike.append("nope_layers")
    if not unlike:
        return None
    fixed = (f"model.{name} {shown(getattr(again, name))}, not {shown(getattr(model, name))}" for name in unlike)
    return f"models of family {model.family} have {', '.join(fixed)}"
