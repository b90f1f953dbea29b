"""Parameters of LoRA adapters in PEFT's format, both ways (`adapter_model.safetensors`)."""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fit_jax.errors import InputError, RunFailed
from fit_jax.foreign import listed, named, shown
from fit_jax.models.adapter_config import CONFIG, WEIGHTS, adapter_folder, fused_projections, peft_config, resolve_lora
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import to_host
from fit_jax.models.families import leading_axes, sources
from fit_jax.models.lora import LoraParam
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.tensor_files import TensorFiles, write_tensors
from fit_jax.parallel.sharding import named_leaves, path_name

_PREFIX = "base_model.model."
_SUFFIXES = {"lora_a": ".lora_A.weight", "lora_b": ".lora_B.weight", "lora_magnitude": ".lora_magnitude_vector"}


def load_adapter(lora: LoraConfig, model: DecoderConfig, target: nnx.State) -> nnx.State:
    """Reads the adapter that `lora.adapter` names into a pytree of its shapes and shardings.

    Args:
        lora: Resolved config.
        model: The decoder it adapts.
        target: All adapter parameters of the decoder, and nothing else.

    Raises:
        InputError: Tensors are missing, unused or of another shape.
    """
    values = _read(lora, model, named_leaves(target))
    return jax.tree.map_with_path(lambda path, leaf: jax.device_put(values[path_name(path)], leaf.sharding), target)


class TrainedAdapter(NamedTuple):
    """An adapter on this host.

    Attributes:
        values: Its parameters by path.
        model: The decoder it was trained on.
        lora: Its config.
    """

    values: dict[str, np.ndarray]
    model: DecoderConfig
    lora: LoraConfig


def trained_adapter(decoder: Decoder, lora: LoraConfig) -> TrainedAdapter:
    """A decoder's adapter on this host; every process takes part in gathering it.

    Raises:
        RunFailed: The adapter does nothing.
    """
    values = {path: to_host(leaf) for path, leaf in named_leaves(nnx.state(decoder, LoraParam)).items()}
    if not any(value.any() for path, value in values.items() if path.endswith("lora_b")):
        raise RunFailed("every B of the adapter is zero: it learned nothing; train longer or with a higher rate")
    return TrainedAdapter(values, decoder.config, lora)


def write_adapter(folder: Path, adapter: TrainedAdapter) -> None:
    """Writes an adapter as PEFT does, and reads it back.

    Args:
        folder: Existing folder.
        adapter: The adapter; its model's `pretrained` is named as the base.

    Raises:
        RunFailed: What was written is not what was trained.
    """
    values, model, lora = adapter
    _write(folder, values, model, lora)
    written = resolve_lora(dataclasses.replace(lora, adapter=str(folder)), model)
    back = _read(written, model, values)
    if written.scaling != lora.scaling or not all(np.array_equal(values[path], back[path]) for path in values):
        raise RunFailed(
            f"{named(folder)}: the adapter read back is not the one that was trained; nothing is kept of it"
        )


def _read(lora: LoraConfig, model: DecoderConfig, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The parameters that `lora.adapter` holds, of the shapes and types of the leaves, by path."""
    assert lora.adapter is not None, "by the caller's config"
    files = TensorFiles(adapter_folder(lora.adapter))
    if whole := [n for n, tensor in files.tensors.items() if not jnp.issubdtype(tensor.dtype, jnp.floating)]:
        raise InputError(f"{named(files.folder)}: {listed(map(shown, whole))}: holds integers; train the adapter again")
    wanted = {path: _place(path, model) for path in leaves}
    needed = {name for place in wanted.values() for name in place.names}
    missing, unused = sorted(needed - set(files.tensors)), sorted(set(files.tensors) - needed)
    if missing or unused:
        raise InputError(
            f"{named(files.folder)}: does not fit a decoder of {model.layers} layers: "
            f"missing: {listed(missing) or 'nothing'}; unused: {listed(map(shown, unused)) or 'nothing'}"
        )

    def read(path: str, leaf: Any) -> np.ndarray:
        place = wanted[path]
        names = place.names
        stored = np.stack([place.own(files.read(name), leaf.shape[-1], lora.rank) for name in names])
        stored = stored.astype(leaf.dtype)
        stored = stored.swapaxes(1, 2) if stored.ndim == 3 else stored
        found, expected = stored.shape[1:], leaf.shape[place.leading :]
        if found != expected:
            raise InputError(
                f"{named(files.folder)}: {names[0]} has shape {found[::-1]}; the model asks for {expected[::-1]}"
            )
        return stored.reshape(leaf.shape)

    return {path: read(path, leaf) for path, leaf in leaves.items()}


def _write(folder: Path, leaves: Mapping[str, np.ndarray], model: DecoderConfig, lora: LoraConfig) -> None:
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, host in leaves.items():
        place = _place(path, model)
        for name, value in zip(place.names, host.reshape(-1, *host.shape[place.leading :])):
            parts.setdefault(name, {})[place.part] = value.T
    values = {name: _together(name, [of[part] for part in sorted(of)]) for name, of in parts.items()}
    tensors = {name: (values[name].shape, values[name].dtype) for name in sorted(values)}
    write_tensors(folder, tensors, (partial(iter, [values[name]]) for name in tensors), most_bytes=2**62)
    (folder / "model.safetensors").rename(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(peft_config(lora, model), indent=2) + "\n", encoding="utf-8")


class _Place(NamedTuple):
    """Where an adapter parameter lies in PEFT's files.

    The adapter of a fused projection holds those of its parts: their A below each other, and their B on the diagonal.
    One that PEFT began has one A for all parts.

    Attributes:
        names: The tensors, one a layer, and there one an expert where it is of experts.
        leading: The parameter's axes of layers and experts.
        kind: `lora_a`, `lora_b` or `lora_magnitude`.
        part: Which part of a fused projection it is, from 0.
        parts: How many there are; 1 where the projection is not fused.
        first: The fused projection's output with which the part begins.
    """

    names: list[str]
    leading: int
    kind: str
    part: int
    parts: int
    first: int

    def own(self, value: np.ndarray, outputs: int, rank: int) -> np.ndarray:
        """What is the parameter's of a tensor, given its outputs (of A: its rank) and the adapter's rank.

        Raises:
            InputError: The tensor mixes the parts of a fused projection.
        """
        if self.parts == 1:
            return value
        rows = slice(self.first, self.first + outputs)
        if self.kind == "lora_magnitude":
            return value[rows]
        ranks = slice(self.part * rank, (self.part + 1) * rank)
        apart = value.shape[self.kind == "lora_b"] == self.parts * rank
        if self.kind == "lora_a":
            return value[ranks] if apart else value
        if apart and np.delete(value[rows], np.r_[ranks], axis=1).any():
            raise InputError(f"{self.names[0]}: has a rank for each part but mixes them; train the adapter again")
        return value[rows, ranks] if apart else value[rows]


def _place(path: str, model: DecoderConfig) -> _Place:
    module, _, kind = path.rpartition(".")
    kernels = sources(f"{module}.kernel", model)
    names = [_PREFIX + kernel.name.removesuffix(".weight") + _SUFFIXES[kind] for kernel in kernels]
    projection = module.rpartition(".")[2]
    parts = next((parts for parts in fused_projections(model).values() if projection in parts), (projection,))
    leading = leading_axes(f"{module}.kernel", model)
    return _Place(names, leading, kind, parts.index(projection), len(parts), kernels[0].first)


def _together(name: str, parts: list[np.ndarray]) -> np.ndarray:
    """The tensor of a projection, from those of its parts as PEFT holds them."""
    if not name.endswith(_SUFFIXES["lora_b"]) or len(parts) == 1:
        return np.ascontiguousarray(np.concatenate(parts))
    outputs, ranks = zip(*(part.shape for part in parts))
    whole = np.zeros((sum(outputs), sum(ranks)), parts[0].dtype)
    row = column = 0
    for part in parts:
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return whole
