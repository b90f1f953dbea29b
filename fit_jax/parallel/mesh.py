"""The device mesh: axes `data`, `fsdp`, `tensor`, `context` and `expert` over all devices of all processes."""

import math
from collections.abc import Sequence
from typing import Protocol

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

from fit_jax.errors import InputError
from fit_jax.parallel.config import AXES, DATA, MeshConfig


class Device(Protocol):
    """What this package uses of `jax.Device`, which has no static type."""

    id: int
    process_index: int
    coords: Sequence[int]  # in the torus; of a TPU alone


def mesh_shape(config: MeshConfig, device_count: int) -> tuple[int, ...]:
    """Sizes of `AXES` over `device_count` devices, with an axis of -1 filled in.

    Raises:
        InputError: More than one axis is -1, a size is not positive, or the sizes do not multiply to `device_count`.
    """
    sizes = {axis: getattr(config, axis) for axis in AXES}
    shown = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 for axis, size in sizes.items() if axis not in free):
        raise InputError(f"mesh: sizes must be positive, and at most one may be -1 (fill); these are {shown}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and device_count % fixed == 0:
        sizes[free[0]] = device_count // fixed
    if math.prod(sizes.values()) != device_count:
        raise InputError(
            f"mesh: {shown} cannot cover {device_count} device(s); "
            "set the sizes so that their product is the device count, or one of them to -1"
        )
    if config.slices < 1 or sizes[DATA] % config.slices:
        raise InputError(f"mesh.slices: {config.slices} slices do not divide the data axis of {sizes[DATA]}")
    return tuple(sizes.values())


def make_mesh(config: MeshConfig, devices: Sequence[Device] | None = None) -> Mesh:
    """A mesh over `devices` (default: all), neighbours in the hardware next to each other.

    Over several slices the outer part of `data` runs across slices, so that only the gradient sum crosses their
    slow links.

    Raises:
        InputError: The sizes do not fit the devices (`mesh_shape`).
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = mesh_shape(config, len(devices))
    types = (AxisType.Auto,) * len(AXES)
    if config.slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    from jax.experimental import mesh_utils

    outer = (config.slices,) + (1,) * (len(AXES) - 1)
    inner = (shape[0] // config.slices, *shape[1:])
    try:
        grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)
    except ValueError as error:
        raise InputError(f"mesh.slices: {config.slices} slices do not match the devices: {error}") from error
    return Mesh(grid, AXES, axis_types=types)


def mesh_of(tree: object) -> Mesh:
    """The mesh that a pytree's arrays lie on; a mesh of their device where they lie on none."""
    sharding = jax.tree.leaves(tree)[0].sharding
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    return make_mesh(MeshConfig(), list(sharding.device_set))
