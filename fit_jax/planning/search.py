"""The fastest plan that fits: meshes, microbatches, remat policies and attention kernels, ranked and then compiled."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from math import gcd
from typing import NamedTuple

from fit_jax.config import Config, MeshConfig
from fit_jax.errors import InputError
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import row_shards
from fit_jax.parallel.topology import Topology
from fit_jax.planning.compiled import laid_out, place
from fit_jax.planning.memory import plan_memory
from fit_jax.planning.plan import Plan, make_plan, with_mesh
from fit_jax.planning.roofline import StepTime, plan_step
from fit_jax.planning.workload import Workload, workload
from fit_jax.training.state import TrainState
from fit_jax.units import GIB

# A plan is compiled where the memory model puts it below this share of the device's memory; the model may be 10 % low.
MARGIN = 1.05
COMPILED = 4
# Splitting a matrix product over more devices than share a host makes its parts too small to be worth their sums.
LARGEST_TENSOR = 8
# Rows shorter than this are cheaper to keep whole.
CONTEXT_FROM = 8192


class Candidate(NamedTuple):
    """A way to lay out the run, and what it takes by shapes alone."""

    load: Workload
    time: StepTime
    bytes: float


def search(
    config: Config, topology: Topology, on_try: Callable[[Candidate], None] = lambda _: None
) -> tuple[Config, Plan]:
    """The fastest config for the machine, with its plan.

    Candidates are ranked by the roofline among those that the memory model says fit; the best are compiled in turn
    until one does.

    Args:
        config: The run; batch size, sequence length and model stay as they are.
        topology: The machine.
        on_try: Called before a candidate is compiled.

    Raises:
        InputError: Nothing fits.
    """
    found = sorted(candidates(workload(config, topology.slices), topology), key=lambda c: c.time.total)
    memory = topology.accelerator.memory
    fitting = [c for c in found if c.bytes <= MARGIN * memory]
    for candidate in fitting[:COMPILED]:
        on_try(candidate)
        chosen = with_mesh(config, candidate.load)
        plan = make_plan(chosen, topology)
        if plan.fits:
            return chosen, plan
    least = min(found, key=lambda c: c.bytes, default=None)
    if least is None:
        raise InputError(
            f"no mesh of {topology} divides train.batch_size {config.train.batch_size}; use a multiple of 2"
        )
    remedy = "take more chips, adapters (lora.rank), or quantised weights (model.quantize)"
    if fitting:
        tried = len(fitting[:COMPILED])
        raise InputError(
            f"{topology}: none of the {tried} fastest layouts that should fit fits by the compiler; {remedy}"
        )
    raise InputError(
        f"nothing fits {topology}: the leanest of {len(found)} layouts needs {least.bytes / GIB:.1f} GiB a device of "
        f"{memory / GIB:.1f}; {remedy}"
    )


def candidates(load: Workload, topology: Topology) -> Iterator[Candidate]:
    """Every layout of the workload that the machine and the shapes allow."""
    devices = topology.devices()
    shapes: TrainState | None = None
    for sizes in mesh_sizes(load, len(devices), topology.slices):
        mesh = make_mesh(sizes, devices)
        rows = gcd(load.rows, load.rehearsal_rows) // row_shards(mesh)
        shapes = shapes or place(load, mesh).state
        state = laid_out(shapes, mesh)
        for accumulate, remat, kernel in product(_powers(rows), ("none", "dots", "full"), ("auto", "xla")):
            model = replace(load.model, remat=remat, attention=kernel)
            option = replace(load, model=model, mesh=sizes, accumulate=accumulate)
            yield Candidate(
                option, plan_step(option, state, mesh, topology), plan_memory(option, state, mesh, topology).total
            )


def mesh_sizes(load: Workload, devices: int, slices: int) -> Iterator[MeshConfig]:
    """Meshes over all devices that divide the rows, the heads, the experts and, where rows are long, the tokens."""
    model = load.model
    longest = devices if load.sequence_length >= CONTEXT_FROM else 1
    for tensor in _powers(devices, LARGEST_TENSOR):
        of_states = model.linear.key_heads if model.linear.layers else 0
        if any(size % tensor for size in (model.kv_heads, model.full_kv_heads or 0, of_states, model.feed_forward)):
            continue
        for context in _powers(devices // tensor, longest):
            if context > 1 and load.sequence_length % context:
                continue
            rows = devices // tensor // context
            if gcd(load.rows, load.rehearsal_rows) % rows:
                continue
            for expert in _powers(gcd(rows, model.experts) if model.experts else 1):
                parts = rows // expert
                for data in (d for d in range(slices, parts + 1, slices) if parts % d == 0):
                    fsdp = parts // data
                    yield MeshConfig(data=data, fsdp=fsdp, tensor=tensor, context=context, expert=expert, slices=slices)


def _powers(number: int, limit: int | None = None) -> list[int]:
    """Powers of two that divide a number, up to a limit."""
    found = [1]
    while number % (found[-1] * 2) == 0 and (limit is None or found[-1] * 2 <= limit):
        found.append(found[-1] * 2)
    return [p for p in found if limit is None or p <= limit]
