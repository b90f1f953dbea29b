"""Machines that need not be there: devices of a named topology, to compile for, and their published figures."""

import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.parallel.gpus import target_config
from fit_jax.parallel.mesh import Device
from fit_jax.units import GIB


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """Published figures of one device (what JAX calls a device: half a chip on TPU7x, else a chip or a GPU).

    Attributes:
        platform: `tpu` or `cuda`.
        flops: Dense bf16 peak, FLOP/s.
        memory: Bytes a program may use; on TPU, what the compiler grants.
        bandwidth: Of that memory, bytes/s.
        link: One interconnect link in one direction, bytes/s. A TPU has two links along each axis of its torus; a GPU
            is taken to have one, into a switch.
        network: A device's share of its host's network, which joins slices and GPU hosts, bytes/s.
        wraps: Lengths of a torus axis that are multiples of this close to a ring; 0 where there is no torus.
        devices_per_chip: Devices that are rented together as one chip.
        options: What the compiler needs to see the chip as JAX does when it runs on it.
    """

    platform: str
    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    wraps: int = 0
    devices_per_chip: int = 1
    options: tuple[tuple[str, str], ...] = ()


# Sources: Google Cloud's TPU system architecture pages and NVIDIA's data sheets (dense bf16, SXM boards, the L4's PCIe
# card), link rates per direction. TPU memory is what the compiler says is available of it; GPUs keep a twentieth for
# the CUDA context and the allocator. Network rates are assumptions: a host's cards, shared by its devices.
ACCELERATORS = {
    "v4": Accelerator(
        platform="tpu",
        flops=275e12,
        memory=30.75 * GIB,
        bandwidth=1.228e12,
        link=45e9,
        network=3.1e9,
        wraps=4,
        options=(("chip_config_name", "megacore"),),
    ),
    "v5e": Accelerator(
        platform="tpu", flops=197e12, memory=15.75 * GIB, bandwidth=0.819e12, link=45e9, network=3.1e9, wraps=16
    ),
    "v5p": Accelerator(
        platform="tpu", flops=459e12, memory=95.74 * GIB, bandwidth=2.765e12, link=90e9, network=6.2e9, wraps=4
    ),
    "v6e": Accelerator(
        platform="tpu", flops=918e12, memory=31.25 * GIB, bandwidth=1.64e12, link=90e9, network=12.5e9, wraps=16
    ),
    "tpu7x": Accelerator(
        platform="tpu",
        flops=1153e12,
        memory=94.75 * GIB,
        bandwidth=3.69e12,
        link=100e9,
        network=6.2e9,
        wraps=4,
        devices_per_chip=2,
    ),
    "h100": Accelerator(platform="cuda", flops=989e12, memory=76 * 1e9, bandwidth=3.35e12, link=450e9, network=50e9),
    "a100": Accelerator(platform="cuda", flops=312e12, memory=76 * 1e9, bandwidth=2.04e12, link=300e9, network=25e9),
    "l4": Accelerator(platform="cuda", flops=121e12, memory=22.8 * 1e9, bandwidth=0.3e12, link=32e9, network=3.1e9),
}


@dataclass(frozen=True)
class Topology:
    """A named machine.

    Attributes:
        kind: A key of `ACCELERATORS`.
        shape: Chips along each axis of a slice's torus; for GPUs, (hosts, GPUs of a host).
        slices: Copies of that shape, joined by the data-centre network.
    """

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @classmethod
    def parse(cls, text: str, slices: int = 1) -> "Topology":
        """A topology from `v5e:4x4`, `v5p:2x2x1`, `h100:8` or `h100:2x8`.

        Raises:
            InputError: An unknown kind, a malformed shape, or slices of GPUs.
        """
        kind, _, sizes = text.partition(":")
        if kind not in ACCELERATORS:
            raise InputError(f"--topology {shown(text)}: unknown device kind; known: {', '.join(ACCELERATORS)}")
        try:
            shape = tuple(int(size) for size in sizes.split("x"))
        except ValueError:
            shape = ()
        gpu = ACCELERATORS[kind].platform == "cuda"
        if not shape or min(shape) < 1 or slices < 1 or len(shape) > 3 - gpu:
            example = f"{kind}:8 or {kind}:2x8" if gpu else f"{kind}:4x4" if kind in ("v5e", "v6e") else f"{kind}:2x2x2"
            raise InputError(f"--topology {shown(text)}: the shape must be positive sizes joined by x, as in {example}")
        if gpu and slices > 1:
            raise InputError(f"--slices {slices}: GPUs have hosts, not slices; write {kind}:HOSTSxGPUS")
        return cls(kind, (1, *shape) if gpu and len(shape) == 1 else shape, slices)

    def __str__(self) -> str:
        """The name that `parse` reads, with the number of slices in front."""
        name = f"{self.kind}:{'x'.join(map(str, self.shape))}"
        return name if self.slices == 1 else f"{self.slices} x {name}"

    @property
    def accelerator(self) -> Accelerator:
        """The figures of its devices."""
        return ACCELERATORS[self.kind]

    @property
    def chips(self) -> int:
        """Chips or GPUs in all."""
        return math.prod(self.shape) * self.slices

    @property
    def closed(self) -> bool:
        """Whether it is one TPU slice all of whose axes close to rings."""
        wraps = self.accelerator.wraps
        return wraps > 0 and self.slices == 1 and all(length % wraps == 0 for length in self.shape)

    def devices(self) -> list[Device]:
        """Devices that programs can be compiled for but not run on.

        Raises:
            InputError: The compiler of the platform is not installed, or it knows no such topology.
        """
        return list(_gpu_devices(self) if self.accelerator.platform == "cuda" else _tpu_devices(self))

    def rate(self, group: Sequence[Device]) -> float:
        """Bytes/s at which a device of a group receives in a ring collective over the group.

        Along a torus axis that closes to a ring both directions carry data, on an open one the end has one link. A
        group that extends along several axes uses the links of all. Between slices, or GPU hosts, the network counts.
        """
        figures = self.accelerator
        if len({_slice_of(device, figures.platform) for device in group}) > 1:
            return figures.network
        if figures.platform == "cuda":
            return figures.link
        rings = 0
        for axis, coordinates in enumerate(zip(*(device.coords for device in group))):
            extent = len(set(coordinates))
            if extent > 1:
                length = self.shape[axis]
                rings += 2 if extent == length and length % figures.wraps == 0 else 1
        return figures.link * max(rings, 1)


def _slice_of(device: Device, platform: str) -> int:
    """What the fast interconnect reaches: a TPU slice, or a GPU host."""
    return device.process_index if platform == "cuda" else getattr(device, "slice_index", None) or 0


@lru_cache
def _tpu_devices(topology: Topology) -> tuple[Device, ...]:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"planning for {topology} needs the TPU compiler, which runs without a TPU; install the extra `tpu`: "
            "pip install '.[tpu]' in a clone"
        )
    from jax.experimental import topologies

    # The compiler else looks for the machine's TPU: asks the cloud's metadata server, logs, and locks it for others.
    for name, value in (
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-4"),
        ("TPU_LOG_DIR", "disabled"),
        ("TPU_MIN_LOG_LEVEL", "3"),
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
    ):
        os.environ.setdefault(name, value)
    options: dict[str, Any] = dict(topology.accelerator.options)
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    if math.prod(topology.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    name = f"{topology.kind}:{'x'.join(map(str, topology.shape))}"
    try:
        return tuple(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--topology {name}: the TPU compiler knows no such slice ({reason[:200]})") from error


@lru_cache
def _gpu_devices(topology: Topology) -> tuple[Device, ...]:
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        raise InputError(
            f"planning for {topology} needs the GPU compiler, which runs without a GPU; install the extra `cuda`: "
            "pip install '.[cuda]' in a clone"
        )
    from jax.experimental import topologies

    card = target_config(topology.kind)
    hosts, gpus = topology.shape
    try:
        described = topologies.get_topology_desc(platform="cuda", target_config=card, topology=f"1x{hosts}x{gpus}")
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--topology {topology}: the GPU compiler refuses it ({reason[:200]})") from error
    return tuple(described.devices)
