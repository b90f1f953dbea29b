"""Bytes a device needs, from shapes: exact for what lives between steps, a model of the compiler for the rest."""

from collections import Counter
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh

from fit_jax.models.config import PROJECTIONS
from fit_jax.models.delta_rule import block_of
from fit_jax.models.head import chunks_of
from fit_jax.models.layer_kinds import LayerKind
from fit_jax.parallel.config import CONTEXT, EXPERT, FSDP, TENSOR
from fit_jax.parallel.sharding import bytes_held, element_count, experts_apart, parts_held, row_shards
from fit_jax.parallel.topology import Topology
from fit_jax.planning.workload import Workload
from fit_jax.training.state import TrainState

# Elements a token of a layer in flight needs in the backward pass, besides the outputs of its projections: in units of
# the model's width and of the feed-forward width. Fitted to the TPU compiler's figures (docs/scaling.md).
WIDTHS_IN_FLIGHT = 10
FEED_FORWARDS_IN_FLIGHT = 3
# Numbers in fp32 that the delta rule needs of a token in the backward pass: so often what is convolved, and the values;
# and of each pair of a block's tokens with those of its row. Fitted to XLA's figures for CPUs alone.
MIXED_IN_FLIGHT, VALUES_IN_FLIGHT, PAIRS_IN_FLIGHT = 12, 14, 4


class Memory(NamedTuple):
    """Bytes a device.

    Attributes:
        parameters: Trained and frozen.
        optimizer: Its state.
        activations: Kept from the forward for the backward pass.
        temp: The rest at the peak: gradients, the layer in flight, gathered weights, logits.
    """

    parameters: float
    optimizer: float
    activations: float
    temp: float

    @property
    def total(self) -> float:
        """All bytes."""
        return sum(self)


def plan_memory(load: Workload, state: TrainState, mesh: Mesh, topology: Topology) -> Memory:
    """The train step's memory.

    Args:
        load: The workload.
        state: The abstract training state; its leaves carry shardings on `mesh`.
        mesh: The mesh.
        topology: The machine.
    """
    parameters = bytes_held((state.trainable, state.frozen))
    activations, working = _activations(load, mesh)
    trained = bytes_held(state.trainable)
    # Gradients in the parameters' dtype leave the scan over layers whole; several microbatches are summed in fp32.
    gradients = trained + (element_count(parts_held(state.trainable)) * 4 if load.accumulate > 1 else 0)
    # On open tori, and over several slices, the compiler defers scattering the vocabulary's gradient until after the
    # layers; where all axes are rings it is gone by then.
    head = _head(load, mesh)
    peak = max(working, head) if topology.closed else working + head
    return Memory(parameters, bytes_held(state.opt_state), activations, gradients + peak)


def uses_fused_attention(load: Workload) -> bool:
    """Whether a kernel computes the layers' attention, so that no array of scores exists."""
    return load.model.attention != "xla"


def microbatch_rows(load: Workload, mesh: Mesh) -> int:
    """Rows of a microbatch on one device, those of rehearsal included."""
    return (load.rows + load.rehearsal_rows) // (load.accumulate * row_shards(mesh))


def _activations(load: Workload, mesh: Mesh) -> tuple[float, float]:
    """Bytes kept of all scanned layers, and bytes of the layer in flight."""
    model, tensor = load.model, mesh.shape[TENSOR]
    item = jnp.dtype(model.compute_dtype).itemsize
    tokens = microbatch_rows(load, mesh) * load.sequence_length // mesh.shape[CONTEXT]
    # A device has room for all tokens of those that send it theirs, since none is dropped.
    room = mesh.shape[EXPERT] if experts_apart(mesh, model.experts) else 1

    def uses(name: str) -> int:
        return model.uses(name) * (room if name in model.expert_projections() else 1)

    split = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "in_proj_qkv", "in_proj_z", "in_proj_qkvz"}

    def outputs_of(kind: LayerKind) -> float:
        shapes = model.projection_shapes(kind).items()
        of_input = 0 if not model.layer_input else model.layer_input + model.width
        parts = {name: tensor if name.removeprefix("experts.") in split else 1 for name, _ in shapes}
        return of_input + sum(uses(name) * outs / parts[name] for name, (_, outs) in shapes)

    def adapters_of(kind: LayerKind) -> int:
        names = {*model.projection_shapes(kind), *(() if kind.linear else PROJECTIONS)}
        return load.lora.rank * sum(map(uses, {*load.lora.targets} & names))

    scores = 0.0
    if not uses_fused_attention(load):
        scores = tokens * load.sequence_length * model.heads / tensor  # elements

    # The experts' inputs lie there once for each expert that a token goes to.
    def in_flight(kind: LayerKind) -> float:
        ups = {name: outs for name, (_, outs) in model.projection_shapes(kind).items() if name.endswith("up_proj")}
        hidden = sum(uses(name) * outs for name, outs in ups.items())
        widths = WIDTHS_IN_FLIGHT + 2 * (sum(map(uses, ups)) - 1)
        elements = outputs_of(kind) + adapters_of(kind) + widths * model.width
        elements += FEED_FORWARDS_IN_FLIGHT * hidden / tensor
        return item * tokens * elements + (_rule(load, mesh) if kind.linear else scores * (4 + 4 + item))

    residual = item * tokens * model.width

    def kept(kind: LayerKind) -> float:
        return {
            "full": residual,
            "dots": residual + item * tokens * (outputs_of(kind) + adapters_of(kind)),
            "none": residual + in_flight(kind),
        }[model.remat]

    kinds = Counter(model.scanned_kinds())
    of_layers = sum(count * kept(kind) for kind, count in kinds.items())
    # What the layers read besides the residual stream, and keys and values that later layers read, stay as well.
    of_layers += item * tokens * model.layers * model.layer_input
    of_layers += item * tokens * sum(2 * kind.kv_heads * kind.head_width / tensor for kind in kinds if kind.kv_reused)
    # Over `fsdp` two layers' worth of weights, or of a gradient that is yet to be scattered, are whole at a time.
    whole = 2 * _layer_weights(load, mesh) / tensor if mesh.shape[FSDP] > 1 else 0.0
    return of_layers, max(map(in_flight, {*kinds, model.kind(model.layers - 1)})) + whole


def _rule(load: Workload, mesh: Mesh) -> float:
    """Bytes of the delta rule of a layer in flight, which has whole rows on each device, all in fp32."""
    shape, T = load.model.linear, load.sequence_length
    of_token = MIXED_IN_FLIGHT * shape.mixed + VALUES_IN_FLIGHT * shape.values
    of_token += PAIRS_IN_FLIGHT * block_of(T) * shape.value_heads
    return 4 * microbatch_rows(load, mesh) * T * of_token / mesh.shape[TENSOR]


def _layer_weights(load: Workload, mesh: Mesh) -> float:
    """Bytes of the weights of the largest layer, of its experts those that a device has."""
    model = load.model
    item = jnp.dtype(model.compute_dtype).itemsize
    layers = [model.projection_shapes(kind) for kind in {*map(model.kind, range(model.layers))}]
    return item * max(sum(own_copies(load, mesh, name) * i * o for name, (i, o) in shapes.items()) for shapes in layers)


def own_copies(load: Workload, mesh: Mesh, projection: str) -> float:
    """How often a device has a projection in a layer: once, or once for each of its experts."""
    copies = load.model.copies(projection)
    return copies / mesh.shape[EXPERT] if experts_apart(mesh, copies) and copies > 1 else copies


def _head(load: Workload, mesh: Mesh) -> float:
    """The vocabulary projection (and its gradient) whole, and logits with their gradient, and those of the base."""
    model = load.model
    item = jnp.dtype(model.compute_dtype).itemsize
    vocabulary = model.vocab_size / mesh.shape[TENSOR]
    whole = (2 if load.lora.rank == 0 else 1) * item * model.width * vocabulary if mesh.shape[FSDP] > 1 else 0.0
    targets = load.sequence_length if load.rehearsal_rows else load.targets
    logits = 3 if load.rehearsal_rows and load.rehearsal.kl else 2
    return whole + logits * 4 * microbatch_rows(load, mesh) * chunks_of(targets)[1] * vocabulary
