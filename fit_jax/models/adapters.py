"""Parameters of LoRA adapters in PEFT's format, both ways (`adapter_model.safetensors`)."""

import dataclasses
import json
import re
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
from fit_jax.models.adapter_config import (
    CONFIG,
    WEIGHTS,
    adapter_folder,
    experts_by_name,
    fused_projections,
    peft_config,
    resolve_lora,
    stacked_parameters,
)
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import to_host
from fit_jax.models.families import LAYER_PREFIX, leading_axes, sources
from fit_jax.models.lora import LoraParam
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.tensor_files import TensorFiles, write_tensors
from fit_jax.parallel.sharding import is_stacked, named_leaves, path_name

_PREFIX = "base_model.model."
# Of tensors that PEFT holds of all experts.
_STACKED = re.compile(r"\.experts(\.base_layer)?\.lora_")
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
    stacked = not experts_by_name(model) or any(_STACKED.search(name) for name in files.tensors)
    if whole := [n for n, tensor in files.tensors.items() if not jnp.issubdtype(tensor.dtype, jnp.floating)]:
        raise InputError(f"{named(files.folder)}: {listed(map(shown, whole))}: holds integers; train the adapter again")
    wanted = {path: _place(path, model, lora, stacked=stacked) for path in leaves}
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
        stored = stored.swapaxes(-2, -1) if stored.ndim > 2 else stored
        found, expected = stored.shape[1:], leaf.shape[place.leading :]
        if found != expected:
            raise InputError(
                f"{named(files.folder)}: {names[0]} has shape {found[::-1]}; the model asks for {expected[::-1]}"
            )
        return stored.reshape(leaf.shape)

    return {path: read(path, leaf) for path, leaf in leaves.items()}


def _write(folder: Path, leaves: Mapping[str, np.ndarray], model: DecoderConfig, lora: LoraConfig) -> None:
    parts: dict[str, list[tuple[_Place, np.ndarray]]] = {}
    for path, host in leaves.items():
        place = _place(path, model, lora, stacked=not experts_by_name(model))
        for name, value in zip(place.names, host.reshape(-1, *host.shape[place.leading :])):
            parts.setdefault(name, []).append((place, value.swapaxes(-2, -1) if value.ndim > 1 else value))
    values = {name: _together(sorted(of, key=lambda one: one[0].part)) for name, of in parts.items()}
    tensors = {name: (values[name].shape, values[name].dtype) for name in sorted(values)}
    write_tensors(folder, tensors, (partial(iter, [values[name]]) for name in tensors), most_bytes=2**62)
    (folder / "model.safetensors").rename(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(peft_config(lora, model), indent=2) + "\n", encoding="utf-8")


class _Place(NamedTuple):
    """Where an adapter parameter lies in PEFT's files.

    The adapter of a fused projection holds those of its parts: their A below each other, and their B on the diagonal.
    One that PEFT began has one A for all parts. That of a parameter of all experts holds their A below each other,
    expert by expert, and their B side by side, rank by rank.

    Attributes:
        names: The tensors, one a layer, and there one an expert where it is of experts.
        leading: The parameter's axes of layers and experts.
        kind: `lora_a`, `lora_b` or `lora_magnitude`.
        part: Which part of a fused projection it is, from 0.
        parts: How many there are; 1 where the projection is not fused.
        first: The fused projection's output with which the part begins.
        step: From one of the part's outputs to the next.
        experts: How many experts the tensor is of; 0 where it is of one, or of none.
    """

    names: list[str]
    leading: int
    kind: str
    part: int
    parts: int
    first: int
    step: int = 1
    experts: int = 0

    def own(self, value: np.ndarray, outputs: int, rank: int) -> np.ndarray:
        """What is the parameter's of a tensor, given its outputs (of A: its rank) and the adapter's rank.

        Raises:
            InputError: The tensor mixes the parts of a fused projection.
        """
        value = self._by_expert(value)
        if self.parts == 1:
            return value
        rows = self.rows(outputs)
        if self.kind == "lora_magnitude":
            return value[rows]
        ranks = slice(self.part * rank, (self.part + 1) * rank)
        apart = value.shape[-1 if self.kind == "lora_b" else -2] == self.parts * rank
        if self.kind == "lora_a":
            return value[..., ranks, :] if apart else value
        if apart and np.delete(value[..., rows, :], np.r_[ranks], axis=-1).any():
            raise InputError(f"{self.names[0]}: has a rank for each part but mixes them; train the adapter again")
        return value[..., rows, ranks] if apart else value[..., rows, :]

    def rows(self, outputs: int) -> slice:
        """Where the part's outputs are among those of the fused projection."""
        return slice(self.first, self.first + (outputs - 1) * self.step + 1, self.step)

    def _by_expert(self, value: np.ndarray) -> np.ndarray:
        """A tensor of all experts, (E, R, in) of A and (E, out, R) of B; others as they are."""
        if not self.experts:
            return value
        axis = self.kind == "lora_b"
        if value.ndim != 2 or value.shape[axis] % self.experts:
            raise InputError(f"{self.names[0]}: has shape {value.shape}, not that of {self.experts} experts")
        if self.kind == "lora_a":
            return value.reshape(self.experts, -1, value.shape[1])
        return value.reshape(value.shape[0], -1, self.experts).transpose(2, 0, 1)


def _place(path: str, model: DecoderConfig, lora: LoraConfig, *, stacked: bool) -> _Place:
    """Where a parameter lies; `stacked` tells whether experts have their adapters in tensors of all of them."""
    module, _, kind = path.rpartition(".")
    kernels = sources(f"{module}.kernel", model)
    if stacked and (found := _of_experts(module, model)):
        whole, parts, projection = found
        layers = dict.fromkeys(kernel.name.removeprefix(LAYER_PREFIX).partition(".")[0] for kernel in kernels)
        # Where PEFT adapts both parameters of a module, it adapts the second around the first.
        around = whole.endswith("gate_up_proj") and model.expert_projections()[-1] in lora.targets
        stem = whole.rpartition(".")[0] + (".base_layer" if around else "")
        names = [f"{_PREFIX}{LAYER_PREFIX}{layer}.{stem}{_SUFFIXES[kind]}" for layer in layers]
        part, step = parts.index(projection), kernels[0].step
        outputs = model.projection_shapes(model.kind(0))[projection][1]
        place = _Place(names, is_stacked(path), kind, part, len(parts), part * outputs if step == 1 else part)
        return place._replace(step=step, experts=model.experts)
    names = [_PREFIX + kernel.name.removesuffix(".weight") + _SUFFIXES[kind] for kernel in kernels]
    projection = module.rpartition(".")[2]
    parts = next((parts for parts in fused_projections(model).values() if projection in parts), (projection,))
    leading = leading_axes(f"{module}.kernel", model)
    return _Place(names, leading, kind, parts.index(projection), len(parts), kernels[0].first)


def _of_experts(module: str, model: DecoderConfig) -> tuple[str, tuple[str, ...], str] | None:
    """The parameter of all experts that a module is a part of, the parameter's parts, and which of them it is."""
    *around, projection = module.split(".")
    own = f"experts.{projection}" if model.expert_width and around[-1] == "experts" else projection
    return next(((whole, parts, own) for whole, parts in stacked_parameters(model).items() if own in parts), None)


def _together(parts: list[tuple[_Place, np.ndarray]]) -> np.ndarray:
    """The tensor of a projection, from those of its parts as PEFT holds them, in order."""
    (place, first), values = parts[0], [value for _, value in parts]
    if place.kind != "lora_b" or len(parts) == 1:
        whole = np.concatenate(values, axis=max(-2, -first.ndim))
    else:
        outputs, ranks = zip(*(value.shape[-2:] for value in values))
        whole = np.zeros((*first.shape[:-2], sum(outputs), sum(ranks)), first.dtype)
        column = 0
        for own, value in parts:
            whole[..., own.rows(value.shape[-2]), column : column + value.shape[-1]] = value
            column += value.shape[-1]
    if place.experts and place.kind == "lora_a":
        whole = whole.reshape(-1, whole.shape[-1])
    elif place.experts:
        whole = whole.transpose(1, 2, 0).reshape(whole.shape[1], -1)
    return np.ascontiguousarray(whole)
