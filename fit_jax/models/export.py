"""Models to disk: merged for Hugging Face, or as they are for the next run here."""

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from fit_jax.models.config import ModelConfig
from fit_jax.models.decoder import Block, Decoder
from fit_jax.models.families import LAYER_PREFIX, sources
from fit_jax.models.lora import Linear, LoraParam
from fit_jax.models.tensor_files import write_tensors
from fit_jax.models.weights import OWN, QUANTIZED
from fit_jax.parallel.sharding import named_leaves

FILE_BYTES = 5 * 10**9


def save_merged(folder: Path, decoder: Decoder, dtype: np.dtype, file_bytes: int = FILE_BYTES) -> None:
    """Writes a decoder's parameters under Hugging Face's names, adapters merged, as safetensors.

    Kernels are merged in fp32 and cast once. One layer at a time is brought to the host.

    Args:
        folder: Existing folder.
        decoder: The model.
        dtype: Floating dtype of the files.
        file_bytes: Size at which another file is begun.
    """
    config = decoder.config
    plain = nnx.state(nnx.eval_shape(lambda: Decoder(_plain(config), rngs=nnx.Rngs(0))))
    shapes: dict[int, dict[str, tuple[tuple[int, ...], np.dtype]]] = {}
    for path, leaf in named_leaves(plain).items():
        for source in sources(path, config):
            shape = leaf.shape[1:] if path.startswith("blocks.") else leaf.shape
            shapes.setdefault(_place(source.name, config), {})[source.name] = (
                shape[::-1] if source.transposed else shape,
                np.dtype(dtype),
            )
    tensors = {name: tensor for place in sorted(shapes) for name, tensor in sorted(shapes[place].items())}

    def values() -> Iterator[np.ndarray]:
        for place in sorted(shapes):
            held = _exported(decoder, place, dtype)
            yield from (to_host(held[name]) for name in sorted(shapes[place]))

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
    write_tensors(folder, tensors, map(to_host, leaves.values()), file_bytes)
    model = dataclasses.asdict(dataclasses.replace(decoder.config, pretrained=None))
    (folder / OWN).write_text(json.dumps({"model": model, "hf": hf}, indent=2) + "\n", encoding="utf-8")


def to_host(array: jax.Array) -> np.ndarray:
    """The whole array on this host, also where other hosts hold parts of it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)


def _plain(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, quantize="none")


def _place(name: str, config: ModelConfig) -> int:
    """Where a tensor stands in the files: its layer, before all of them (-1), or after (L)."""
    if name.startswith(LAYER_PREFIX):
        return int(name.removeprefix(LAYER_PREFIX).split(".")[0])
    return -1 if "embed" in name else config.layers


def _exported(decoder: Decoder, place: int, dtype: np.dtype) -> dict[str, jax.Array]:
    """The tensors that stand at one place, by Hugging Face name."""
    config = decoder.config
    if place in (-1, config.layers):
        paths = ("embed.embedding",) if place == -1 else ("final_norm.scale", "lm_head.kernel")
        leaves = named_leaves(nnx.state(decoder))
        row, values = 0, _as_stored({path: leaves[path] for path in paths if path in leaves}, config, dtype)
    else:
        stacked = place < config.layers - 1
        part, row, layer = ("blocks", place, place) if stacked else ("last_block", 0, None)
        graphdef, weights = nnx.split(decoder.blocks if stacked else decoder.last_block)
        values = _merge_layer(graphdef, weights, layer, part, config, dtype)
    return {sources(path, config)[row].name: value for path, value in values.items()}


@partial(jax.jit, static_argnums=(1, 2))
def _as_stored(values: dict[str, jax.Array], config: ModelConfig, dtype: np.dtype) -> dict[str, jax.Array]:
    """Parameters by path, each of one layer, the way round and in the dtype of the files."""
    return {
        path: (value.T if sources(path, config)[0].transposed else value).astype(dtype)
        for path, value in values.items()
    }


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _merge_layer(
    graphdef: Any, weights: nnx.State, layer: int | None, part: str, config: ModelConfig, dtype: np.dtype
) -> dict[str, jax.Array]:
    """`_as_stored` of a layer, its adapters merged into the kernels; `layer` picks one of stacked weights."""
    if layer is not None:
        weights = jax.tree.map(lambda a: a[layer], weights)
    block: Block = nnx.merge(graphdef, weights)
    kept = named_leaves(nnx.state(block, lambda _, value: not isinstance(value, LoraParam)))
    merged = {path: value for path, value in kept.items() if not path.endswith(QUANTIZED)}
    for path, module in nnx.iter_modules(block):
        if isinstance(module, Linear):
            merged[".".join(map(str, path)) + ".kernel"] = module.merged_kernel()
    return _as_stored({f"{part}.{path}": value for path, value in merged.items()}, config, dtype)
