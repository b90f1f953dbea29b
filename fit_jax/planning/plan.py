"""A plan: whether a config's train and evaluation steps fit a named machine, and what they cost there."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import NamedTuple

from jax.sharding import Mesh

from fit_jax.config import Config
from fit_jax.parallel.config import CONTEXT, EXPERT, FSDP, TENSOR
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import bytes_held
from fit_jax.parallel.topology import Topology
from fit_jax.planning.compiled import Program, compile_evaluation, compile_train, place
from fit_jax.planning.memory import Memory, plan_memory
from fit_jax.planning.roofline import EXCHANGE, StepTime, compiled_step, plan_evaluation, plan_step, plan_traffic
from fit_jax.planning.workload import Workload, workload
from fit_jax.runs.resolve import check_mesh
from fit_jax.training.state import TrainState
from fit_jax.units import GIB


@dataclass(frozen=True)
class Plan:
    """What a run needs of a machine.

    Attributes:
        topology: The machine.
        load: The run's shapes.
        planned: Bytes a device of the train step, by the model of the compiler.
        held: Bytes of parameters and of the optimizer's state, exact.
        train: The compiled train step.
        evaluation: The compiled evaluation step.
        time: The roofline of the train step.
        traffic: Bytes a device receives in a train step, by kind of collective.
        replicated: Dimensions that the mesh does not divide.
    """

    topology: Topology
    load: Workload
    planned: Memory
    held: tuple[float, float]
    train: Program
    evaluation: Program
    time: StepTime
    traffic: dict[str, float]
    replicated: tuple[str, ...]

    @property
    def spare(self) -> float:
        """Bytes left on a device by the larger program; where one does not compile, by the planned bytes (negative)."""
        compiled = self.train.failure is None and self.evaluation.failure is None
        need = max(self.train.total, self.evaluation.total) if compiled else self.planned.total
        return self.topology.accelerator.memory - need

    @property
    def fits(self) -> bool:
        """Whether both programs compile and stay within the memory, which the GPU compiler does not check."""
        return self.train.failure is None and self.evaluation.failure is None and self.spare >= 0

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change where it does not fit, the most effective first; empty where it does."""
        return () if self.fits else _advice(self.load, self.planned, self.topology)


class Outline(NamedTuple):
    """What a run needs of a machine by shapes alone, without compiling anything.

    Attributes:
        load: The run's shapes.
        bytes: Bytes a device of the train step, by the model of the compiler.
        step: Seconds of a train step.
        evaluation: Seconds of scoring an evaluation batch.
    """

    load: Workload
    bytes: float
    step: float
    evaluation: float


def outline(config: Config, topology: Topology) -> Outline:
    """The memory and the times of a config on a machine, in a second where `make_plan` compiles for minutes.

    Raises:
        InputError: As `make_plan`.
    """
    load, mesh = _laid_out(config, topology)
    state = place(load, mesh).state
    return Outline(
        load,
        plan_memory(load, state, mesh, topology).total,
        plan_step(load, state, mesh, topology).total,
        plan_evaluation(load, state, mesh, topology),
    )


def make_plan(config: Config, topology: Topology) -> Plan:
    """Compiles the steps of a config for a machine and judges them.

    Raises:
        InputError: The compiler is not installed, or config and machine do not fit together.
    """
    load, mesh = _laid_out(config, topology)
    placed = place(load, mesh)
    train, evaluation = compile_train(load, topology), compile_evaluation(load, topology)
    time, traffic = _time(load, placed.state, mesh, topology, train)
    held = bytes_held((placed.state.trainable, placed.state.frozen)), bytes_held(placed.state.opt_state)
    planned = plan_memory(load, placed.state, mesh, topology)
    return Plan(topology, load, planned, held, train, evaluation, time, traffic, placed.replicated)


def _laid_out(config: Config, topology: Topology) -> tuple[Workload, Mesh]:
    """The workload with an axis of -1 filled in, and its mesh of the machine's devices."""
    load = workload(config, topology.slices)
    mesh = make_mesh(load.mesh, topology.devices())
    check_mesh(config, mesh)
    return replace(load, mesh=replace(load.mesh, **mesh.shape)), mesh


def _time(
    load: Workload, state: TrainState, mesh: Mesh, topology: Topology, train: Program
) -> tuple[StepTime, dict[str, float]]:
    traffic: dict[str, float] = defaultdict(float)
    if train.failure is not None:
        for row in plan_traffic(load, state, mesh):
            traffic[row.kind] += row.bytes
        return plan_step(load, state, mesh, topology), dict(traffic)
    for collective in train.collectives:
        traffic[collective.kind] += collective.wire
    if sent := sum(row.bytes for row in plan_traffic(load, state, mesh) if row.kind == EXCHANGE):
        traffic["tokens to experts"] = sent
    return compiled_step(load, state, mesh, topology, train.collectives), dict(traffic)


def _advice(load: Workload, planned: Memory, topology: Topology) -> tuple[str, ...]:
    """Remedies for the parts that take most, in order of their size."""
    remedies: dict[str, list[str]] = {"parameters": [], "optimizer": [], "activations": [], "temp": []}
    split = topology.accelerator.devices_per_chip * topology.chips
    mesh = vars(load.mesh)
    if mesh[FSDP] not in (-1, split) and load.rows % split == 0:
        sizes = {"data": 1, "fsdp": split} | {axis: 1 for axis in (TENSOR, CONTEXT, EXPERT) if mesh[axis] != 1}
        options = " ".join(f"--mesh.{axis} {size}" for axis, size in sizes.items())
        remedies["parameters"].append(f"split the parameters over all devices: {options}")
    if load.lora.rank and load.model.quantize == "none":
        remedies["parameters"].append("store the frozen weights in 8 or 4 bits: --model.quantize int8 (or nf4)")
    if load.model.param_dtype == "float32" and load.lora.rank:
        remedies["parameters"].append("keep the weights in bf16: --model.param_dtype bfloat16")
    if not load.lora.rank:
        remedies["optimizer"].append("train adapters instead of every weight: --lora.rank 16")
    if load.model.remat != "full":
        remedies["activations"].append("recompute layers in the backward pass: --model.remat full")
    if load.rows // load.accumulate > split:
        remedies["activations"].append(f"smaller microbatches: --train.accumulate {load.accumulate * 2}")
    if load.model.attention == "xla":
        remedies["temp"].append("attention without an array of scores: --model.attention auto")
    sizes = planned._asdict()
    chosen = [line for part in sorted(remedies, key=lambda p: -sizes[p]) for line in remedies[part]]
    need, memory = planned.total / GIB, topology.accelerator.memory / GIB
    return (*chosen, f"a machine with at least {need / memory:.1f} times the memory: more chips, or chips with more")


def with_mesh(config: Config, load: Workload) -> Config:
    """The config that asks for this workload's mesh, microbatches, remat and attention kernel."""
    model = replace(config.model, remat=load.model.remat, attention=load.model.attention)
    return replace(config, model=model, mesh=load.mesh, train=replace(config.train, accumulate=load.accumulate))
