"""The training state that starts from a pretrained model's weights."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from fit_jax.models.adapters import load_adapter
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora import LoraParam, start_magnitudes
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.weights import load_weights
from fit_jax.training.optimizer import Optimizer
from fit_jax.training.state import PlacedState, TrainState, abstract_state, build_state, in_fp32


def pretrained_state(
    model: DecoderConfig, lora: LoraConfig, optimizer: Optimizer | None, mesh: Mesh, seed: int
) -> PlacedState:
    """A training state at step 0 with the weights of `model.pretrained`, read straight to the devices that hold them.

    Adapters are those of `lora.adapter`, or fresh ones drawn by the seed.

    Args:
        model: Resolved config.
        lora: Resolved config.
        optimizer: None leaves its state empty.
        mesh: Where the state lies.
        seed: Draws fresh adapters.

    Raises:
        InputError: The model's or the adapter's files are missing, damaged, or do not fit.
    """
    placed = abstract_state(model, lora, optimizer, mesh)
    shapes = placed.state
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    if lora.rank == 0:
        trainable = load_weights(model, shapes.trainable)
        frozen = shapes.frozen  # without adapters every parameter is trained
    else:
        frozen = load_weights(model, shapes.frozen)
        if lora.adapter is not None:
            trainable = load_adapter(lora, model, shapes.trainable)
        else:
            draw = jax.jit(
                lambda seed: build_state(model, lora, None, seed)[1].trainable, out_shardings=shardings.trainable
            )
            trainable = draw(jnp.uint32(seed))
            if lora.dora:
                trainable = _with_magnitudes(placed.graphdef, trainable, frozen, shardings.trainable)

    moments = ()
    if optimizer is not None:
        moments = jax.jit(lambda t: optimizer.transform.init(in_fp32(t)), out_shardings=shardings.opt_state)(trainable)
    step = jax.device_put(jnp.zeros((), jnp.int32), shardings.step)
    return placed._replace(state=TrainState(step, trainable, frozen, moments))


def _with_magnitudes(
    graphdef: nnx.GraphDef, trainable: nnx.State, frozen: nnx.State, shardings: nnx.State
) -> nnx.State:
    """Fresh DoRA adapters whose magnitudes are the norms of the weights that were read."""

    def start(trainable: nnx.State, frozen: nnx.State) -> nnx.State:
        decoder = nnx.merge(graphdef, trainable, frozen, copy=True)
        start_magnitudes(decoder)
        return nnx.state(decoder, LoraParam)

    return jax.jit(start, out_shardings=shardings)(trainable, frozen)
