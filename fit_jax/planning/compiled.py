"""The real train and evaluation programs, compiled for devices that need not be there."""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from fit_jax.data.rehearsal import WithRehearsal
from fit_jax.evaluation.scoring import Scorer
from fit_jax.parallel.hlo import Collective, collectives
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree
from fit_jax.parallel.topology import Topology
from fit_jax.planning.workload import Workload
from fit_jax.training.optimizer import Optimizer, make_optimizer
from fit_jax.training.rehearsal import Rehearsal
from fit_jax.training.state import PlacedState, TrainState, abstract_state
from fit_jax.training.step import abstract_batch, compile_train_step

# The compiler's lowest effort: half the compile time, the same partitioning.
EFFORT, _EFFORT = -1.0, "jax_exec_time_optimization_effort"


class Program(NamedTuple):
    """What the compiler says of one program, a device.

    Attributes:
        seconds: It took to compile.
        arguments: Bytes of state and batch.
        temp: Bytes it needs besides.
        collectives: What crosses the interconnect in a step.
        failure: Why it does not compile; None where it does. The other figures are then 0.
    """

    seconds: float
    arguments: float
    temp: float
    collectives: tuple[Collective, ...]
    failure: str | None = None

    @property
    def total(self) -> float:
        """Bytes in all; the state is updated in place."""
        return self.arguments + self.temp


def place(load: Workload, mesh: Mesh) -> PlacedState:
    """The abstract training state on a mesh."""
    return abstract_state(load.model, load.lora, _optimizer(load), mesh)


def _optimizer(load: Workload) -> Optimizer:
    return make_optimizer(load.optimizer, load.steps or 1000)  # where the data tell, any number gives the same program


def laid_out(state: TrainState, mesh: Mesh) -> TrainState:
    """An abstract training state as it lies on another mesh."""
    shardings = lay_out_tree(state, mesh).shardings
    return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings)


def compile_train(load: Workload, topology: Topology) -> Program:
    """Compiles the train step."""
    mesh = make_mesh(load.mesh, topology.devices())
    optimizer = _optimizer(load)
    placed = abstract_state(load.model, load.lora, optimizer, mesh)
    batch, T = abstract_batch(load.rows, load.sequence_length, load.targets, mesh), load.sequence_length
    rehearsal = Rehearsal.of(load.rehearsal, load.model)
    if rehearsal is not None:
        batch = WithRehearsal(batch, abstract_batch(load.rehearsal_rows, T, T, mesh))
    return _program(
        lambda: compile_train_step(
            placed.graphdef,
            optimizer,
            placed.state,
            batch,
            rehearsal=rehearsal,
            balance=load.expert_balance,
            accumulate=load.accumulate,
        ),
        mesh,
    )


def compile_evaluation(load: Workload, topology: Topology) -> Program:
    """Compiles the step that scores a batch of answers."""
    mesh = make_mesh(load.mesh, topology.devices())
    placed = abstract_state(load.model, load.lora, None, mesh)
    scorer = Scorer(placed.graphdef, mesh, load.evaluation_rows)
    batch = abstract_batch(scorer.rows, load.sequence_length, load.targets, mesh)
    return _program(lambda: scorer.compile(placed.state.params, batch), mesh)


def _program(build: Callable[[], jax.stages.Compiled], mesh: Mesh) -> Program:
    started = time.monotonic()
    effort = getattr(jax.config, _EFFORT, None)  # newer versions of JAX have no such option
    if effort is not None:
        jax.config.update(_EFFORT, EFFORT)
    try:
        compiled = build()
    except jax.errors.JaxRuntimeError as error:
        # Out of memory is an answer; anything else is a fault.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Program(time.monotonic() - started, 0, 0, (), _reason(str(error)))
    finally:
        if effort is not None:
            jax.config.update(_EFFORT, effort)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None  # every compiler of JAX's says so
    assert text is not None
    return Program(
        time.monotonic() - started,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        tuple(collectives(text, mesh.size)),
    )


def _reason(message: str) -> str:
    """The compiler's first sentence on memory."""
    found = re.search(r"Ran out of memory[^\n]*?(?=\n|\. |$)", message)
    return " ".join((found[0] if found else message.splitlines()[0]).split())[:300]
