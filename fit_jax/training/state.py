"""The training state as one pytree, made on the mesh it lives on."""

import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.lora import trainable_filter
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.sharding import lay_out_tree
from fit_jax.training.optimizer import Optimizer


class TrainState(NamedTuple):
    """Everything that an optimizer step reads and writes.

    Attributes:
        step: Optimizer steps done.
        trainable: Parameters that are trained: the adapters with LoRA, every parameter without.
        frozen: The other parameters.
        opt_state: The optimizer's state over `trainable`.
        objective: The objective's own state, such as weights of groups; () where it has none.
    """

    step: Int[Array, ""]
    trainable: nnx.State
    frozen: nnx.State
    opt_state: optax.OptState
    objective: Any = ()

    @property
    def params(self) -> tuple[nnx.State, nnx.State]:
        """The model's states, as `nnx.merge(graphdef, *params)` takes them."""
        return self.trainable, self.frozen


class PlacedState(NamedTuple):
    """A training state that was made, or is still to be.

    Attributes:
        graphdef: The model's structure; `nnx.merge(graphdef, *state.params)` gives the `Decoder`.
        state: Arrays, or `jax.ShapeDtypeStruct`s with shardings.
        replicated: One line for each dimension left unsplit because its mesh axis does not divide it.
    """

    graphdef: nnx.GraphDef
    state: TrainState
    replicated: tuple[str, ...]


def purpose_key(seed: int | Array, purpose: str) -> Key[Array, ""]:
    """The random key of one purpose; independent of every other purpose's."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))


def with_objective(placed: PlacedState, start: object, mesh: Mesh) -> PlacedState:
    """The state with an objective's own (`Objective.start`), whole on every device."""
    own = jax.device_put(start, NamedSharding(mesh, PartitionSpec()))
    return placed._replace(state=placed.state._replace(objective=own))


def in_fp32(tree: object) -> Any:
    """The pytree with every leaf in fp32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)


def abstract_state(model: DecoderConfig, lora: LoraConfig, optimizer: Optimizer | None, mesh: Mesh) -> PlacedState:
    """Names, shapes, dtypes and shardings of a training state; nothing is allocated.

    Without an optimizer `opt_state` is empty: what a trained model is read into.
    """
    return _abstract(_building(model, lora, optimizer), mesh)


def init_state(
    model: DecoderConfig, lora: LoraConfig, optimizer: Optimizer | None, mesh: Mesh, seed: int
) -> PlacedState:
    """A fresh training state with random weights, each part made on the devices that hold it."""
    build = _building(model, lora, optimizer)
    abstract = _abstract(build, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract.state)
    _, state = jax.jit(build, out_shardings=(None, shardings))(jnp.uint32(seed))
    return abstract._replace(state=state)


@lru_cache(maxsize=1)
def _building(model: DecoderConfig, lora: LoraConfig, optimizer: Optimizer | None) -> partial:
    """`build_state` of these; one object, so that JAX traces it once."""
    return partial(build_state, model, lora, optimizer)


def _abstract(build: Callable[[Array], tuple[nnx.GraphDef, TrainState]], mesh: Mesh) -> PlacedState:
    graphdef, shapes = jax.eval_shape(build, jax.ShapeDtypeStruct((), jnp.uint32))
    layout = lay_out_tree(shapes, mesh)
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, layout.shardings
    )
    return PlacedState(graphdef, state, layout.replicated)


def build_state(
    model: DecoderConfig, lora: LoraConfig, optimizer: Optimizer | None, seed: Array
) -> tuple[nnx.GraphDef, TrainState]:
    """A fresh model and the training state around it, in any JAX transformation; `seed` draws the weights."""
    decoder = Decoder(model, lora, rngs=nnx.Rngs(purpose_key(seed, "init")))
    graphdef, trainable, frozen = nnx.split(decoder, trainable_filter(lora), ...)
    opt_state = () if optimizer is None else optimizer.transform.init(in_fp32(trainable))
    return graphdef, TrainState(jnp.zeros((), jnp.int32), trainable, frozen, opt_state)
