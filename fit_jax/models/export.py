"""Models to disk: merged for Hugging Face, or as they are for the next run here."""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from fit_jax.models.block import Block
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.experts import ExpertLinear
from fit_jax.models.families import LAYER_PREFIX, Source, leading_axes, sources
from fit_jax.models.layer_kinds import all_stacks
from fit_jax.models.lora import Linear, LoraParam
from fit_jax.models.model_folder import OWN
from fit_jax.models.mxfp4 import PackedFiles
from fit_jax.models.tensor_files import TensorBlocks, write_tensors
from fit_jax.models.weights import QUANTIZED
from fit_jax.parallel.mesh import Device
from fit_jax.parallel.sharding import is_stacked, named_leaves

FILE_BYTES = 5 * 10**9
# Bytes assembled before they are written, and a multiple of which columns are turned together: whole cache lines.
_BLOCK_BYTES, _COLUMNS = 1 << 21, 64


def save_merged(
    folder: Path, decoder: Decoder, dtype: np.dtype, file_bytes: int = FILE_BYTES, packed: PackedFiles | None = None
) -> None:
    """Writes a decoder's parameters under Hugging Face's names, adapters merged, as safetensors.

    Kernels are merged in fp32 and cast once, one layer at a time. The host holds no more than a few blocks of tensors.

    Args:
        folder: Existing folder.
        decoder: The model.
        dtype: Floating dtype of the files.
        file_bytes: Size at which another file is begun.
        packed: Files whose packed tensors are the decoder's too, and are written as they stand there.
    """
    config = decoder.config
    plain = nnx.state(nnx.eval_shape(lambda: Decoder(_plain(config), rngs=nnx.Rngs(0))))
    shapes: dict[int, dict[str, tuple[tuple[int, ...], np.dtype]]] = {}
    for path, leaf in named_leaves(plain).items():
        for source in sources(path, config):
            tensor = (source.tensor_shape(leaf.shape[leading_axes(path, config) :]), np.dtype(dtype))
            shapes.setdefault(_place(source.name, config), {})[source.name] = tensor
    tensors, stored = {}, {}
    for place in sorted(shapes):
        for name, tensor in sorted(shapes[place].items()):
            stored[name] = {} if packed is None else packed.as_stored(name)
            tensors |= {part: tuple(found)[:2] for part, (found, _) in stored[name].items()} or {name: tensor}

    halved = dtype == np.float16

    def values() -> Iterator[TensorBlocks]:
        for place in sorted(shapes):
            held = _exported(decoder, place, np.dtype(np.float32 if halved else dtype))
            for name in sorted(shapes[place]):
                whole = _tensor_blocks(held[name])
                merged = partial(_in_float16, whole) if halved else whole
                yield from [blocks for _, blocks in stored[name].values()] or [merged]

    write_tensors(folder, tensors, values(), file_bytes)


def save_own(folder: Path, decoder: Decoder, hf: dict[str, Any], file_bytes: int = FILE_BYTES) -> None:
    """Writes a decoder without adapters as an imported model: our names, stacked, in its own dtypes.

    Args:
        folder: Existing folder.
        decoder: The model.
        hf: The Hugging Face config that an export starts from.
        file_bytes: Size at which another file is begun.
    """
    leaves = named_leaves(nnx.state(decoder))
    tensors = {path: (leaf.shape, np.dtype(leaf.dtype)) for path, leaf in leaves.items()}
    write_tensors(folder, tensors, (_tensor_blocks([_DeviceTensor(leaf)]) for leaf in leaves.values()), file_bytes)
    model = dataclasses.asdict(dataclasses.replace(decoder.config, pretrained=None))
    (folder / OWN).write_text(json.dumps({"model": model, "hf": hf}, indent=2) + "\n", encoding="utf-8")


def to_host(array: jax.Array) -> np.ndarray:
    """The whole array on this host, also where other hosts hold parts of it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)


def _plain(config: DecoderConfig) -> DecoderConfig:
    return dataclasses.replace(config, quantize="none")


def _place(name: str, config: DecoderConfig) -> int:
    """Where a tensor stands in the files: its layer, before all of them (-1), or after (L)."""
    if name.startswith(LAYER_PREFIX):
        return int(name.removeprefix(LAYER_PREFIX).split(".")[0])
    return -1 if "embed" in name else config.layers


class _DeviceTensor(NamedTuple):
    """A tensor on the devices: its array, which of the layers and experts there it is, and whether to turn it.

    Parts of one tensor that are `alternating` hold every other of its outputs each, and lie below each other if not.
    """

    array: jax.Array
    at: tuple[int, ...] = ()
    transposed: bool = False
    alternating: bool = False


def _exported(decoder: Decoder, place: int, dtype: np.dtype) -> dict[str, list[_DeviceTensor]]:
    """The tensors that stand at one place, by Hugging Face name, each in the parts that it is made of, in order."""
    config = decoder.config
    if place in (-1, config.layers):
        leaves = named_leaves(nnx.state(decoder))
        alone = [path for path in leaves if not is_stacked(path) and not path.startswith("last_block.")]
        here = [path for path in alone if _place(sources(path, config)[0].name, config) == place]
        layer, values = None, {path: leaves[path] for path in here}
    else:
        part, layer, block = "last_block", None, decoder.last_block
        for stack in all_stacks(config.scanned_kinds()).values():
            if place in stack.layers:
                part, layer, block = stack.name, stack.layers.index(place), decoder.stack(stack.name)
        values = {f"{part}.{path}": value for path, value in named_leaves(nnx.state(block)).items()}
        if config.quantize != "none" or nnx.state(block, LoraParam):
            values, layer = _merge_layer(*nnx.split(block), layer, part, dtype), None
    if any(value.dtype != dtype for value in values.values()):
        values, layer = _cast(values, layer, dtype), None
    found: list[tuple[Source, _DeviceTensor]] = []
    for path, value in values.items():
        by_expert = leading_axes(path, config) - is_stacked(path)
        tensors = [source for source in sources(path, config) if _place(source.name, config) == place]
        for expert, source in enumerate(tensors):
            index = (*([] if layer is None else [layer]), *([expert] * by_expert))
            found.append((source, _DeviceTensor(value, index, source.transposed, source.step > 1)))
    parts: dict[str, list[_DeviceTensor]] = {}
    for source, held in sorted(found, key=lambda pair: pair[0].first):
        parts.setdefault(source.name, []).append(held)
    return parts


@partial(jax.jit, static_argnums=(0, 3, 4))
def _merge_layer(
    graphdef: nnx.GraphDef, weights: nnx.State, layer: int | None, part: str, dtype: np.dtype
) -> dict[str, jax.Array]:
    """A layer's parameters by path, its adapters merged into the kernels; `layer` picks one of stacked weights."""
    block: Block = nnx.merge(graphdef, _of_layer(weights, layer))
    kept = named_leaves(nnx.state(block, lambda _, value: not isinstance(value, LoraParam)))
    merged = {path: value for path, value in kept.items() if not path.endswith(QUANTIZED)}
    for path, module in nnx.iter_modules(block):
        if isinstance(module, Linear | ExpertLinear):
            merged[".".join(map(str, path)) + ".kernel"] = module.merged_kernel()
    return {f"{part}.{path}": value.astype(dtype) for path, value in merged.items()}


@partial(jax.jit, static_argnums=2)
def _cast(values: dict[str, jax.Array], layer: int | None, dtype: np.dtype) -> dict[str, jax.Array]:
    return jax.tree.map(lambda value: value.astype(dtype), _of_layer(values, layer))


def _of_layer(tree: object, layer: int | None) -> Any:
    return tree if layer is None else jax.tree.map(lambda a: a[layer], tree)


def _tensor_blocks(parts: list[_DeviceTensor]) -> TensorBlocks:
    """What brings a tensor to this host as the files hold it, put together from its parts."""
    together = _alternated if parts[0].alternating else itertools.chain
    by_expert = parts[0].transposed and parts[0].array.ndim - len(parts[0].at) == 3
    if all(held.array.is_fully_addressable for held in parts):
        return partial(_by_expert, parts) if by_expert else lambda: together(*map(_assembled, parts))
    # All hosts must gather in one order, so not from several threads.
    wholes = [(to_host(held.array[held.at] if held.at else held.array), held.transposed) for held in parts]
    turned = [whole.swapaxes(-2, -1) if transposed else whole for whole, transposed in wholes]
    if by_expert:
        return lambda: [np.concatenate(turned, axis=1)]
    return lambda: together(*([whole] for whole in turned))


def _in_float16(blocks: TensorBlocks) -> Iterator[np.ndarray]:
    """Blocks rounded on this host: XLA cannot on processors without instructions for it, whatever its flags."""
    for block in blocks():
        with np.errstate(over="ignore"):  # what the dtype does not hold is found when the files are read back
            rounded = block.astype(np.float16)
        yield rounded


def _by_expert(parts: list[_DeviceTensor]) -> Iterator[np.ndarray]:
    """Blocks of a tensor of all experts, each an expert's outputs of one part after another."""
    for expert in range(parts[0].array.shape[len(parts[0].at)]):
        blocks = [_assembled(held._replace(at=(*held.at, expert))) for held in parts]
        yield np.concatenate([block.copy() for part in blocks for block in part])[None]


def _alternated(*parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks of a tensor whose outputs are one of each part in turn."""
    for blocks in zip(*parts, strict=True):
        yield np.stack(blocks, axis=-1).reshape(*blocks[0].shape[:-1], -1)


class _Part(NamedTuple):
    """A shard's share of a tensor on this host, and where in the tensor it stands."""

    at: tuple[slice, ...]
    values: np.ndarray


def _assembled(held: _DeviceTensor) -> Iterator[np.ndarray]:
    """Blocks of a tensor's rows, put together from the devices' shards in one buffer that stays in the cache."""
    array, index, transposed, _ = held
    shape, parts = array.shape[len(index) :], []
    device = array.addressable_shards[0].device
    on_host = device.platform == "cpu"  # memory that is read where it lies
    for shard in array.addressable_shards:
        starts, stops = zip(*(at.indices(size)[:2] for at, size in zip(shard.index, array.shape)))
        inside = all(start <= n < stop for start, n, stop in zip(starts, index, stops))
        if shard.replica_id or not inside:  # experts may lie on other devices
            continue
        at = tuple(map(slice, starts[len(index) :], stops[len(index) :]))
        own = tuple(n - start for n, start in zip(index, starts))
        if on_host:
            parts.append(_Part(at, np.asarray(shard.data)[own]))
        elif transposed:  # other devices turn a layer themselves, and send it alone
            parts.append(_Part(at[::-1], np.asarray(shard.data[own].T)))
        else:
            parts.append(_Part(at, np.asarray(shard.data[own])))
    if transposed and on_host:
        yield from _turned(parts, shape, device)
    else:
        yield from _rows(parts, shape[::-1] if transposed else shape)


def _rows(parts: list[_Part], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Blocks of rows of a tensor that lies as the files hold it."""
    dtype = parts[0].values.dtype
    height = max(1, _BLOCK_BYTES // (math.prod(shape[1:]) * dtype.itemsize))
    buffer = np.empty((height, *shape[1:]), dtype)
    for start in range(0, shape[0], height):
        stop = min(start + height, shape[0])
        for (rows, *others), values in parts:
            low, high = max(start, rows.start), min(stop, rows.stop)
            if low < high:
                buffer[(slice(low - start, high - start), *others)] = values[low - rows.start : high - rows.start]
        yield buffer[: stop - start]


def _turned(parts: list[_Part], shape: tuple[int, ...], device: Device) -> Iterator[np.ndarray]:
    """Blocks of rows of a matrix that lies the other way round: its columns, which JAX turns as it takes them over."""
    dtype = parts[0].values.dtype
    width = max(1, _BLOCK_BYTES // (shape[0] * dtype.itemsize * _COLUMNS)) * _COLUMNS
    buffer = np.empty((shape[0], width), dtype)
    for start in range(0, shape[1], width):
        stop = min(start + width, shape[1])
        block = buffer[:, : stop - start]
        if len(parts) == 1:
            block = parts[0].values[:, start:stop]
        for (rows, columns), values in parts if len(parts) > 1 else ():
            low, high = max(start, columns.start), min(stop, columns.stop)
            if low < high:
                block[rows, low - start : high - start] = values[:, low - columns.start : high - columns.start]
        yield np.asarray(jax.device_put(block.T, device))
