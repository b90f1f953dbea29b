"""Several processes as one program: start-up, who writes, and whose rows are whose."""

import os
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from fit_jax.parallel.sharding import batch_sharding, row_shards

BatchType = TypeVar("BatchType", bound=tuple)


def start() -> None:
    """Sets JAX up for a door: compiled programs are kept on the disk and found again by the next process.

    They are kept in `JAX_COMPILATION_CACHE_DIR`, or under the user's cache folder.
    """
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "fit_jax", "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def is_lead() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def rows_of_this_process(batch_size: int, mesh: Mesh) -> slice:
    """The rows of a global batch that this process's devices hold.

    Processes whose devices differ only along `tensor` or `context` hold the same rows.

    Raises:
        ValueError: The rows are not one contiguous block (devices of the mesh are not ordered by process).
    """
    held = _held(batch_size, mesh)
    start, stop = int(held[0]), int(held[-1]) + 1
    if stop - start != len(held):
        raise ValueError(f"process {jax.process_index()} holds rows {held.tolist()} of the batch, not one block")
    return slice(start, stop)


def maximum_over_processes(values: list[list[int]]) -> list[list[int]]:
    """The elementwise maximum of every process's table of integers; the tables are of one shape."""
    if jax.process_count() == 1 or not values:
        return values
    from jax.experimental import multihost_utils

    # JAX would cut 64-bit integers; their halves travel whole.
    halves = np.asarray(values, np.int64).view(np.int32)
    gathered = np.ascontiguousarray(multihost_utils.process_allgather(halves))
    return gathered.view(np.int64).max(axis=0).tolist()


def _held(size: int, mesh: Mesh) -> np.ndarray:
    """Which of `size` rows, split as a batch is, this process's devices hold; ascending."""
    owned = np.zeros(size, bool)
    for (rows,) in batch_sharding(mesh, tokens=False).addressable_devices_indices_map((size,)).values():
        owned[rows] = True
    return np.flatnonzero(owned)


def to_global(batch: BatchType, mesh: Mesh) -> BatchType:
    """This process's rows as global arrays on the mesh; an explicit, asynchronous transfer.

    Args:
        batch: A named tuple of NumPy arrays with this process's rows (`rows_of_this_process`) in the first dimension;
            fields whose names start with `target` are (rows, C), the others (rows, T).
        mesh: The mesh.
    """
    parts = row_shards(mesh)
    rows = len(batch[0]) * parts // len(_held(parts, mesh))

    def place(field: str, array: np.ndarray) -> jax.Array:
        sharding = batch_sharding(mesh, tokens=not field.startswith("target"))
        if jax.process_count() == 1:
            return jax.device_put(array, sharding)
        return jax.make_array_from_process_local_data(sharding, array, (rows, *array.shape[1:]))

    return type(batch)(*(place(field, array) for field, array in zip(batch._fields, batch)))
