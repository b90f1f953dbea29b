"""AdamW after clipping by global norm, with linear warm-up and cosine decay; all arithmetic in fp32."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fit_jax.config import OptimizerConfig
from fit_jax.errors import InputError
from fit_jax.parallel.sharding import path_name

Schedule = Callable[[ArrayLike], Float[Array, ""]]

# Weight decay is for matrices; norm scales, biases and DoRA's magnitudes set sizes that it would pull to zero.
DECAYED = ("kernel", "embedding", "lora_a", "lora_b")


class Optimizer(NamedTuple):
    """An optax transformation and the learning rate it follows, by the number of updates done."""

    transform: optax.GradientTransformation
    schedule: Schedule


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """Learning rate by the number of updates done: linear warm-up, whose first update already moves, then a cosine.

    The last of `steps` updates comes within one step of `final` times the peak.
    """
    warmup = round(config.warmup * steps)

    def schedule(done: ArrayLike) -> Float[Array, ""]:
        step = jnp.asarray(done, jnp.float32)
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        cosine = config.final + (1.0 - config.final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return config.learning_rate * jnp.minimum((step + 1.0) / max(warmup, 1), cosine)

    return schedule


def make_optimizer(config: OptimizerConfig, steps: int, moves: Callable[[str], bool] | None = None) -> Optimizer:
    """The optimizer of a run of `steps` updates; its state and gradients are fp32 pytrees like the parameters.

    Args:
        config: Its hyperparameters.
        steps: Updates of the run.
        moves: Whether the parameter of a dotted name is updated at all; by default each is.

    Raises:
        InputError: A value with which nothing is learnt, or that no schedule has.
    """
    _check(config)
    schedule = make_schedule(config, steps)
    transform = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=_decayed,
        ),
    )
    if moves is not None:
        still = optax.masked(optax.set_to_zero(), partial(_unless, moves))
        # Before, so that the norm that is clipped is that of what moves; after, since decay moves everything.
        transform = optax.chain(still, transform, still)
    return Optimizer(transform, schedule)


def _check(config: OptimizerConfig) -> None:
    ranges = {
        "learning_rate": (0 < config.learning_rate < math.inf, "above 0"),
        "warmup": (0 <= config.warmup <= 1, "a share of the steps, from 0 to 1"),
        "final": (0 <= config.final <= 1, "a share of the peak, from 0 to 1"),
        "weight_decay": (0 <= config.weight_decay < math.inf, "0 or more"),
        "beta1": (0 <= config.beta1 < 1, "in [0, 1)"),
        "beta2": (0 <= config.beta2 < 1, "in [0, 1)"),
        "epsilon": (0 < config.epsilon < math.inf, "above 0"),
        "clip_norm": (config.clip_norm > 0, "above 0"),
    }
    for name, (fits, wanted) in ranges.items():
        if not fits:
            raise InputError(f"optimizer.{name}: {getattr(config, name)} is not {wanted}")


def _unless(moves: Callable[[str], bool], params: Any) -> Any:
    """Which leaves stay as they are."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not moves(path_name(path)), params)


def _decayed(params: Any) -> Any:
    """Which leaves weight decay pulls on."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path_name(path).endswith(DECAYED), params)
