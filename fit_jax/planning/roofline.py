"""How long a step takes at best: the slowest of arithmetic, memory and interconnect, under stated assumptions."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fit_jax.models.delta_rule import block_of
from fit_jax.models.flops import Flops, forward_flops, train_flops
from fit_jax.models.kernels import OwnKernel, of_gpu
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.config import CONTEXT, DATA, EXPERT, FSDP, TENSOR
from fit_jax.parallel.gpus import CARDS
from fit_jax.parallel.hlo import Collective
from fit_jax.parallel.mesh import Device
from fit_jax.parallel.sharding import bytes_held, experts_apart, row_shards
from fit_jax.parallel.topology import Topology
from fit_jax.planning.attention import Work, kernel_work
from fit_jax.planning.memory import microbatch_rows, own_copies, uses_fused_attention
from fit_jax.planning.workload import Workload
from fit_jax.training.state import TrainState

# Share of the peak that large bf16 matrix products reach; training runs that are published come to 0.45 to 0.67 in all.
MATMUL_SHARE = 0.7

# How tokens travel to their experts. How many go where depends on the data, so that no program tells it.
EXCHANGE = "all-to-all"

ASSUMPTIONS = (
    f"matrix products reach {MATMUL_SHARE:.0%} of the bf16 peak; rows are one text each",
    "the attention kernel computes and reads the blocks that its lists name; cuDNN's skips the masked half",
    "each projection reads its input and weights and writes its output once a pass; elementwise work is fused",
    "weight gathers and gradient sums overlap with arithmetic; sums over `tensor`, gathers over `context` do not, nor "
    "do tokens that go to experts (`expert`), of which each gets its even share",
    "collectives run as rings at the published link rate; latency is left out",
    "the input pipeline keeps up",
)


class StepTime(NamedTuple):
    """Seconds of a step.

    Attributes:
        compute: Arithmetic.
        memory: Reading and writing device memory.
        overlapped: Collectives that run beside arithmetic.
        exposed: Collectives that arithmetic waits for.
        flops: Operations of all devices, attention over whole rows.
    """

    compute: float
    memory: float
    overlapped: float
    exposed: float
    flops: Flops

    @property
    def total(self) -> float:
        """The step."""
        return max(self.compute, self.memory, self.overlapped) + self.exposed

    @property
    def utilisation(self) -> float:
        """Share of the peak that the step's matrix products use (MFU); masked halves that a kernel skips are no use."""
        return MATMUL_SHARE * self.compute / self.total

    @property
    def bound(self) -> str:
        """What the step waits for most."""
        parts = {"compute": self.compute, "memory": self.memory, "interconnect": self.overlapped}
        return max(parts, key=parts.__getitem__)


class Traffic(NamedTuple):
    """A planned collective of a step.

    Attributes:
        kind: `all-gather`, `all-reduce`, `reduce-scatter` or `all-to-all`.
        axis: The mesh axis it runs along.
        bytes: A device receives in a step.
    """

    kind: str
    axis: str
    bytes: float


def plan_step(load: Workload, state: TrainState, mesh: Mesh, topology: Topology) -> StepTime:
    """The roofline from shapes alone."""
    collectives = (_seconds(traffic, mesh, topology) for traffic in plan_traffic(load, state, mesh))
    return _step_time(load, state, mesh, topology, collectives)


def compiled_step(
    load: Workload, state: TrainState, mesh: Mesh, topology: Topology, found: Iterable[Collective]
) -> StepTime:
    """The roofline with the collectives of the compiled program."""
    devices = list(mesh.devices.flat)
    fixed = [{d.id for d in _along(mesh, axis)} for axis in (TENSOR, CONTEXT)]

    def timed(collective: Collective) -> tuple[float, bool]:
        group = [devices[number] for number in collective.group] or devices
        ids = {d.id for d in group}
        return collective.wire / topology.rate(group), len(ids) > 1 and any(ids <= axis for axis in fixed)

    tokens = [t for t in plan_traffic(load, state, mesh) if t.kind == EXCHANGE]
    return _step_time(load, state, mesh, topology, [*map(timed, found), *(_seconds(t, mesh, topology) for t in tokens)])


def plan_evaluation(load: Workload, state: TrainState, mesh: Mesh, topology: Topology) -> float:
    """Seconds of scoring one evaluation batch of whole rows, from shapes alone.

    A forward pass: the slower of its arithmetic and of reading the weights, which a split over `fsdp` gathers first;
    and tokens that go to experts.
    """
    figures = topology.accelerator
    flops = forward_flops(load.model, load.lora, load.evaluation_rows, load.sequence_length, load.targets)
    weights = bytes_held((state.trainable, state.frozen)) * mesh.shape[FSDP]
    gathered = weights * _share(mesh.shape[FSDP]) / topology.rate(_along(mesh, FSDP))
    kernel = _kernel_work(load, topology, load.evaluation_rows, backward=False)
    total = flops.total if kernel is None else flops.total - flops.attention + kernel.flops
    compute = total / (mesh.size * figures.flops * MATMUL_SHARE)
    tokens = load.evaluation_rows * load.sequence_length // row_shards(mesh) // mesh.shape[CONTEXT]
    exchanged, _ = _seconds(tokens_to_experts(load, mesh, tokens, 2), mesh, topology)
    return max(compute, weights / figures.bandwidth, gathered) + exchanged


def plan_traffic(load: Workload, state: TrainState, mesh: Mesh) -> list[Traffic]:
    """The collectives that the sharding rules imply, by axis."""
    model = load.model
    item = jnp.dtype(model.compute_dtype).itemsize
    tensor, fsdp, data, context, expert = (mesh.shape[a] for a in (TENSOR, FSDP, DATA, CONTEXT, EXPERT))
    repeats = load.accumulate
    weights = bytes_held((state.trainable, state.frozen)) * fsdp  # of one group over fsdp, whole
    trained = bytes_held(state.trainable)
    tokens = microbatch_rows(load, mesh) * load.sequence_length
    residual = item * tokens // context * model.width
    own = [kind for kind in map(model.kind, range(model.layers)) if not kind.reuses_kv]
    gathered = sum(model.linear.mixed if kind.linear else 2 * kind.kv_heads * kind.head_width for kind in own)
    keys_values = item * tokens * gathered / tensor
    again = int(model.remat == "full")
    # What all devices along `expert` have alike.
    shared = bytes_held([leaf for leaf in jax.tree.leaves(state.trainable) if EXPERT not in leaf.sharding.spec])
    rows = [
        # Weights are gathered for the forward and for the backward pass; what remat repeats uses the latter.
        Traffic("all-gather", FSDP, 2 * repeats * weights * _share(fsdp)),
        Traffic("reduce-scatter", FSDP, repeats * trained * fsdp * _share(fsdp)),
        Traffic("all-reduce", DATA, 2 * repeats * trained * _share(data)),
        # After o_proj and down_proj, and in the backward pass before q/k/v and gate/up.
        Traffic("all-reduce", TENSOR, 2 * repeats * (4 + again) * model.layers * residual * _share(tensor)),
        Traffic("all-reduce", EXPERT, 2 * repeats * shared * _share(expert)),
        # Tokens to their experts and back, forward and backward.
        tokens_to_experts(load, mesh, repeats * tokens // context, 4 + 2 * again),
        Traffic("all-gather", CONTEXT, repeats * (1 + again) * keys_values * _share(context)),
        Traffic("reduce-scatter", CONTEXT, repeats * keys_values * _share(context)),
    ]
    return [row for row in rows if row.bytes]


def tokens_to_experts(load: Workload, mesh: Mesh, tokens: int, times: int) -> Traffic:
    """What a device gets of tokens for its experts, evenly spread, or back from those of others.

    Args:
        load: The run's shapes.
        mesh: The mesh.
        tokens: Of a device.
        times: How often each layer sends them.
    """
    model = load.model
    sent = tokens * model.experts_per_token * model.width * jnp.dtype(model.compute_dtype).itemsize
    sent *= experts_apart(mesh, model.experts)
    return Traffic(EXCHANGE, EXPERT, times * model.layers * sent * _share(mesh.shape[EXPERT]))


def _seconds(traffic: Traffic, mesh: Mesh, topology: Topology) -> tuple[float, bool]:
    """What a planned collective takes, and whether the step waits for it."""
    exposed = traffic.axis in (TENSOR, CONTEXT) or traffic.kind == EXCHANGE
    return traffic.bytes / topology.rate(_along(mesh, traffic.axis)), exposed


def _share(size: int) -> float:
    return (size - 1) / size


def _along(mesh: Mesh, axis: str) -> list[Device]:
    """The devices of one group along an axis."""
    at = tuple(slice(None) if name == axis else 0 for name in mesh.axis_names)
    return list(mesh.devices[at].flat)


def _step_time(
    load: Workload, state: TrainState, mesh: Mesh, topology: Topology, collectives: Iterable[tuple[float, bool]]
) -> StepTime:
    """The roofline with collectives of so many seconds each, and whether the step waits for them."""
    figures, devices = topology.accelerator, mesh.size
    flops = _flops(load)
    # The last layer of rehearsal's rows, with more targets, is counted as that of the others.
    kernel = _kernel_work(load, topology, load.rows + load.rehearsal_rows, backward=True)
    attention = flops.attention * (0.5 if uses_fused_attention(load) else 1.0) if kernel is None else kernel.flops
    compute = (flops.total - flops.attention + attention) / (devices * figures.flops * MATMUL_SHARE)
    seconds = {True: 0.0, False: 0.0}
    for taken, exposed in collectives:
        seconds[exposed] += taken
    moved = _moved(load, state, mesh) + (0.0 if kernel is None else kernel.bytes / devices)
    return StepTime(compute, moved / figures.bandwidth, seconds[False], seconds[True], flops)


def _kernel_work(load: Workload, topology: Topology, rows: int, *, backward: bool) -> Work | None:
    """What the prefix-tree kernel does, where the workload's layers run it."""
    tpu = topology.accelerator.platform == "tpu"
    if load.model.attention not in (("auto", "kernel") if tpu else ("kernel",)):
        return None

    def kernel(head_width: int) -> OwnKernel:
        return "tpu" if tpu else of_gpu(CARDS[topology.kind].name, head_width)

    return kernel_work(load.model, rows, load.sequence_length, load.targets, kernel, backward=backward)


def _flops(load: Workload) -> Flops:
    """Of a step: the task's rows, those of rehearsal, and the base's forward pass over these."""
    T, rehearsed = load.sequence_length, load.rehearsal_rows
    parts = [train_flops(load.model, load.lora, load.rows, T, load.targets)]
    if rehearsed:
        parts.append(train_flops(load.model, load.lora, rehearsed, T, T))
    if rehearsed and load.rehearsal.kl:
        parts.append(forward_flops(load.model, LoraConfig(), rehearsed, T, T))
    return Flops(*(sum(values) for values in zip(*parts)))


def _moved(load: Workload, state: TrainState, mesh: Mesh) -> float:
    """Bytes that a device's memory reads and writes in a step."""
    model, tensor = load.model, mesh.shape[TENSOR]
    item = jnp.dtype(model.compute_dtype).itemsize
    passes = 3 + (model.remat == "full")
    tokens = microbatch_rows(load, mesh) * load.sequence_length // mesh.shape[CONTEXT]
    layers = [model.projection_shapes(model.kind(layer)).items() for layer in range(model.layers)]
    copies = {name: own_copies(load, mesh, name) for shapes in layers for name, _ in shapes}
    weights = item * sum(copies[name] * ins * outs for shapes in layers for name, (ins, outs) in shapes) / tensor
    numbers = sum(model.uses(name) * (ins + outs) for shapes in layers for name, (ins, outs) in shapes)
    activations = item * tokens * numbers / math.sqrt(tensor)
    keeping, T = len(model.linear.layers or ()), load.sequence_length
    # Each block of queries reads the keys and what was made of the values of its whole row, to solve and to gather.
    states = 2 * 4 * tokens * T / block_of(T) * keeping * (model.linear.mixed / 2 + model.linear.values) / tensor
    scores = 0.0
    if not uses_fused_attention(load):
        # Written, normalised and read, fp32.
        scores = 3 * 4 * tokens * T * (model.layers - keeping) * model.heads / tensor
    update = 2 * (bytes_held(state.trainable) + bytes_held(state.opt_state))
    return load.accumulate * passes * (weights + activations + scores + states) + update
