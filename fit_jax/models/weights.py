"""Weights from disk, of Hugging Face folders and imported models, straight to the shards of each device."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fit_jax.errors import InputError
from fit_jax.foreign import listed, named
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.families import Source, family_traits, leading_axes, sources, text_name, without_unread
from fit_jax.models.families.family import turned
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import Pretrained, open_pretrained
from fit_jax.models.mxfp4 import PackedFiles
from fit_jax.models.quantize import Quantized, quantize
from fit_jax.models.quantized_files import QuantizedFiles
from fit_jax.models.stacked_files import StackedFiles
from fit_jax.models.tensor_files import CODES, TensorFiles
from fit_jax.parallel.sharding import named_leaves, path_name

# Tensors that old exports hold and no model reads.
_DERIVED = ("rotary_emb.inv_freq",)
# Characters of tensors' names that an error shows, of their ends.
_LONGEST_NAMES = 56
QUANTIZED = (".codes", ".scales", ".scale_max")
# A device and the part of a parameter that it holds.
_Shard = tuple[jax.Device, tuple[slice, ...]]


def load_weights(model: DecoderConfig, target: nnx.State) -> nnx.State:
    """Reads a pretrained model's parameters into a pytree of shapes and shardings.

    A host reads only the slices that its devices hold, one shard after another, so that it never holds the model.

    Args:
        model: Resolved config that names the model.
        target: All parameters of the decoder but its adapters; leaves are `jax.ShapeDtypeStruct`s with shardings, or
            arrays to be replaced.

    Raises:
        InputError: Files are missing, truncated or corrupt; tensors are missing, unused, or of another shape or dtype.
    """
    assert model.pretrained is not None, "by the caller's config"
    return read_parameters(open_pretrained(model.pretrained), model, target)


def tensor_files(found: Pretrained) -> TensorFiles:
    """The files of a model, under the names of its text's tensors; quantised ones are seen as what they stand for."""
    said, renamed = found.quantization, text_name if found.left_out else str
    experts = family_traits(found.config.family).experts
    if said is None and found.config.experts and "{}" in experts["gate_proj"]:
        return StackedFiles(found.folder, experts, renamed)
    if said is None:
        return TensorFiles(found.folder, renamed)
    if said.of_any_family:
        return QuantizedFiles(found.folder, said, renamed)
    return PackedFiles(found.folder, renamed)


def read_parameters(found: Pretrained, model: DecoderConfig, target: nnx.State) -> nnx.State:
    """`load_weights` of an opened model."""
    files = tensor_files(found)
    leaves = named_leaves(target)
    parts = {path: _Part(files, path, leaf, found) for path, leaf in leaves.items() if not path.endswith(QUANTIZED)}
    quantized = _quantized_leaves(leaves)
    if found.config.quantize == "none":
        kernels = {kernel: _kernel_shape(group, model) for kernel, group in quantized.items()}
        parts |= {kernel: _Part(files, kernel, leaf, found) for kernel, leaf in kernels.items()}
    else:
        parts |= {path: _Part(files, path, leaf, found) for path, leaf in leaves.items() if path.endswith(QUANTIZED)}
    _check(files, parts, model)

    def read(path: tuple[Any, ...], leaf: Any) -> Any:
        name = path_name(path)
        return parts[name].array() if name in parts else done[name]

    done = {}
    for kernel, group in quantized.items():
        if kernel in parts:
            done |= _quantize_group(parts.pop(kernel).array(), kernel, group, model)
    return jax.tree.map_with_path(read, target)


# Threads that copy shards of one parameter, each holding one on the host.
_READERS = 2


class _Part:
    """One parameter and the tensors it is made of."""

    def __init__(self, files: TensorFiles, path: str, leaf: Any, found: Pretrained) -> None:
        self.files, self.path, self.leaf = files, path, leaf
        self.leading = 0 if found.own else leading_axes(path, found.config)
        given = [Source(path, False)] if found.own else sources(path, found.config)
        self.names, self.source = [source.name for source in given], given[0]

    def stored_shape(self) -> tuple[int, ...]:
        """The shape that each of its tensors must have."""
        return self.source.tensor_shape(self.leaf.shape[self.leading :])

    def array(self) -> jax.Array:
        """The parameter, each device holding its shard."""
        shape, sharding = self.leaf.shape, self.leaf.sharding
        if sharding is None:
            return jax.device_put(self._slices((slice(None),) * len(shape)))
        wanted: dict[tuple[tuple[int | None, int | None], ...], list[_Shard]] = {}
        for device, index in sharding.addressable_devices_indices_map(shape).items():
            wanted.setdefault(tuple((s.start, s.stop) for s in index), []).append((device, index))

        def read(held: list[_Shard]) -> list[jax.Array]:
            value = self._slices(held[0][1])
            # Waiting frees this thread's copy on the host before it reads the next.
            return jax.block_until_ready([jax.device_put(value, device) for device, _ in held])

        # Copying is all there is to do, and one thread does not use up the memory's speed.
        with ThreadPoolExecutor(_READERS) as readers:
            shards = [shard for held in readers.map(read, wanted.values()) for shard in held]
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    def _slices(self, index: tuple[slice, ...]) -> np.ndarray:
        full = tuple(slice(*s.indices(n)) for s, n in zip(index, self.leaf.shape))
        inner, counts = full[self.leading :], self.leaf.shape[: self.leading]
        # Which of its tensors: of a layer, and there of an expert.
        wanted = np.arange(math.prod(counts)).reshape(counts)[full[: self.leading]]
        sizes = tuple(s.stop - s.start for s in inner)
        shape = (wanted.size, *(turned(sizes) if self.source.transposed else sizes))
        value, stored = np.empty(shape, self.leaf.dtype), self.source.slices(inner)
        for row, number in enumerate(wanted.flat):
            value[row] = self.files.read(self.names[number], stored)
        value = value.swapaxes(-2, -1) if self.source.transposed else value
        return value.reshape(*wanted.shape, *value.shape[1:])


def _check(files: TensorFiles, parts: dict[str, _Part], model: DecoderConfig) -> None:
    """Strict agreement between the tensors that are needed and those that are there."""
    needed = {name: part for part in parts.values() for name in part.names}
    missing = [name for name in needed if name not in files.tensors]
    unused = without_unread((n for n in files.tensors if n not in needed and not n.endswith(_DERIVED)), model)
    if isinstance(files, QuantizedFiles):
        unused = [name for name in unused if not files.is_idle(name)]
    if model.tied and "lm_head.weight" in unused:
        _check_tie(files)
        unused.remove("lm_head.weight")
    if missing or unused:
        wrong = {kind: names for kind, names in (("missing", missing), ("unused", unused)) if names}
        longest = _LONGEST_NAMES // len(wrong)
        lines = [f"{kind}: {listed((name[-longest:] for name in names), 1)}" for kind, names in wrong.items()]
        raise InputError(
            f"{named(files.folder)}: tensors do not fit config.json: {', '.join(lines)}; fetch files of one model: "
            f"config.json says {model.family}, {model.layers} layers, {'tied' if model.tied else 'untied'} embeddings"
        )
    for name, part in needed.items():
        tensor, expected = files.tensors[name], part.stored_shape()
        if tensor.shape != expected:
            raise InputError(f"{named(tensor.file)}: {name} has shape {tensor.shape}; config.json asks for {expected}")
        if tensor.dtype in CODES:
            raise InputError(
                f"{named(tensor.file)}: {name} is in FP8 without a scale; fetch the files and config.json again"
            )
        if jnp.issubdtype(part.leaf.dtype, jnp.floating) != jnp.issubdtype(tensor.dtype, jnp.floating):
            raise InputError(f"{named(tensor.file)}: {name} holds {tensor.dtype}; {part.leaf.dtype} is needed")


def _check_tie(files: TensorFiles) -> None:
    """A file may hold the output embeddings of a tied model once more, but not others."""
    first, second = "model.embed_tokens.weight", "lm_head.weight"
    same = first in files.tensors and files.tensors[first].shape == files.tensors[second].shape
    if not same or not np.array_equal(files.read(first), files.read(second)):
        raise InputError(
            f"{named(files.folder)}: config.json ties the embeddings, but lm_head.weight is another matrix; "
            "set tie_word_embeddings to false there if the model was trained so"
        )


def _quantized_leaves(leaves: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Kernel path to its `codes`, `scales` and `scale_max`."""
    groups: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves.items():
        if path.endswith(QUANTIZED):
            kernel, _, part = path.rpartition(".")
            groups.setdefault(kernel, {})[part] = leaf
    return groups


def _kernel_shape(group: dict[str, Any], model: DecoderConfig) -> jax.ShapeDtypeStruct:
    """The kernel that codes stand for, lying on the devices as they do."""
    codes = group["codes"]
    *layers, rows, outputs = codes.shape
    shape = (*layers, rows * 2 if model.quantize == "nf4" else rows, outputs)
    return jax.ShapeDtypeStruct(shape, jnp.dtype(model.param_dtype), sharding=codes.sharding)


def _quantize_group(kernel: jax.Array, path: str, group: dict[str, Any], model: DecoderConfig) -> dict[str, jax.Array]:
    assert model.quantize != "none", "of a model that has codes"
    shardings = Quantized(**{part: leaf.sharding for part, leaf in group.items()})
    one = partial(quantize, kind=model.quantize)

    def function(kernel: jax.Array) -> Any:  # matrix by matrix, so that the fp32 arithmetic needs one's memory
        leading = kernel.shape[:-2]
        done = jax.lax.map(one, kernel.reshape(-1, *kernel.shape[-2:]))
        return jax.tree.map(lambda a: a.reshape(*leading, *a.shape[1:]), done)

    put = None if None in shardings else shardings
    done = jax.jit(function, out_shardings=put)(kernel)
    return {f"{path}.{part}": value for part, value in jax.block_until_ready(done)._asdict().items()}


def abstract_parameters(model: DecoderConfig, shardings: Callable[[nnx.State], Any] | None = None) -> tuple[Any, Any]:
    """Structure and shapes of a decoder without adapters, laid out by `shardings` (None: on the default device)."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(model, LoraConfig(), rngs=nnx.Rngs(0))))
    if shardings is None:
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        placed = jax.tree.map(lambda _: device, state)
    else:
        placed = shardings(state)
    return graphdef, jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, placed)
