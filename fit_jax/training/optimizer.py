"""What an update is: clipping by global norm, then one of optax's optimizers along a schedule; all arithmetic in fp32.

AdamW (Loshchilov & Hutter 2019), Adafactor (Shazeer & Stern 2018) without momentum and at rates relative to the size of
each matrix, Lion (Chen et al. 2023), and Muon (Jordan et al. 2024) for the matrices of the layers, scaled so that its
updates are as large as AdamW's (Liu et al. 2025), with AdamW for embeddings, the output layer, norms and biases.
Weight decay is decoupled and a factor on the learning rate in all of them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from fit_jax.config import OptimizerConfig
from fit_jax.errors import InputError
from fit_jax.parallel.sharding import is_stacked, path_name

Schedule = Callable[[ArrayLike], Float[Array, ""]]

# Weight decay is for matrices; norm scales, biases and DoRA's magnitudes set sizes that it would pull to zero.
DECAYED = ("kernel", "embedding", "lora_a", "lora_b")
# What Muon updates, the output layer apart.
LAYER_MATRICES = ("kernel", "lora_a", "lora_b")
# Root mean square that updates of AdamW have in practice, before the learning rate (Liu et al. 2025).
_ADAMW_RMS = 0.2


class Optimizer(NamedTuple):
    """An optax transformation and the learning rate it follows, by the number of updates done."""

    transform: optax.GradientTransformation
    schedule: Schedule


def make_schedule(config: OptimizerConfig, steps: int) -> Schedule:
    """Learning rate by the number of updates done: linear warm-up, whose first update already moves, then as named.

    Where the rate falls, the last of `steps` updates comes within one step of `final` times the peak.
    """
    warmup = round(config.warmup * steps)
    # Updates before the rate begins to fall.
    held = steps - round(config.decay * steps) if config.schedule == "wsd" else warmup

    def schedule(done: ArrayLike) -> Float[Array, ""]:
        step = jnp.asarray(done, jnp.float32)
        progress = jnp.clip((step - held) / max(steps - held, 1), 0.0, 1.0)
        if config.schedule == "cosine":
            left = config.final + (1.0 - config.final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        elif config.schedule == "constant":
            left = 1.0
        else:
            left = config.final + (1.0 - config.final) * (1.0 - progress)
        return config.learning_rate * jnp.minimum((step + 1.0) / max(warmup, 1), left)

    return schedule


def make_optimizer(config: OptimizerConfig, steps: int, moves: Callable[[str], bool] | None = None) -> Optimizer:
    """The optimizer of a run of `steps` updates; gradients and moments are fp32 pytrees like the parameters.

    Args:
        config: Its hyperparameters.
        steps: Updates of the run.
        moves: Whether the parameter of a dotted name is updated at all; by default each is.

    Raises:
        InputError: A value with which nothing is learnt, or that no schedule has.
    """
    _check(config)
    schedule = make_schedule(config, steps)
    transform = optax.chain(optax.clip_by_global_norm(config.clip_norm), _RULES[config.name](config, schedule))
    if moves is not None:
        still = optax.masked(optax.set_to_zero(), partial(_unless, moves))
        # Before, so that the norm that is clipped is that of what moves; after, since decay moves everything.
        transform = optax.chain(still, transform, still)
    return Optimizer(transform, schedule)


def _adamw(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    return optax.adamw(
        schedule,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=_decayed,
    )


def _adafactor(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    # Not `optax.adafactor`: its decay is no factor on the learning rate, and takes the same share at every rate.
    return optax.chain(
        optax.scale_by_factored_rms(),  # over the two largest dimensions, which the layers are not
        _each_matrix(optax.clip_by_block_rms(1.0)),
        _each_matrix(optax.scale_by_param_block_rms()),
        optax.add_decayed_weights(config.weight_decay, _decayed),
        optax.scale_by_learning_rate(schedule),
    )


def _lion(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    return optax.lion(schedule, b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=_decayed)


def _muon(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    # Not `optax.contrib.muon`: it decays all that it leaves to AdamW or nothing of it.
    matrices = optax.chain(
        optax.contrib.scale_by_muon(beta=config.beta1, eps=config.epsilon, weight_dimension_numbers=_last_two),
        optax.stateless(lambda updates, _: jax.tree.map(_as_large_as_adamw, updates)),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(schedule),
    )
    return optax.partition({"muon": matrices, "adamw": _adamw(config, schedule)}, _muon_or_adamw)


_RULES = {"adamw": _adamw, "adafactor": _adafactor, "lion": _lion, "muon": _muon}


def _check(config: OptimizerConfig) -> None:
    ranges = {
        "learning_rate": (0 < config.learning_rate < math.inf, "above 0"),
        "warmup": (0 <= config.warmup <= 1, "a share of the steps, from 0 to 1"),
        "final": (0 <= config.final <= 1, "a share of the peak, from 0 to 1"),
        "decay": (0 < config.decay <= 1, "a share of the steps, above 0 and up to 1"),
        "weight_decay": (0 <= config.weight_decay < math.inf, "0 or more"),
        "beta1": (0 <= config.beta1 < 1, "in [0, 1)"),
        "beta2": (0 <= config.beta2 < 1, "in [0, 1)"),
        "epsilon": (0 < config.epsilon < math.inf, "above 0"),
        "clip_norm": (config.clip_norm > 0, "above 0"),
    }
    for name, (fits, wanted) in ranges.items():
        if not fits:
            raise InputError(f"optimizer.{name}: {getattr(config, name)} is not {wanted}")
    if config.schedule == "wsd" and config.warmup + config.decay > 1:
        raise InputError(
            f"optimizer.warmup {config.warmup} and optimizer.decay {config.decay} are more than all steps together; "
            "lower one of them"
        )


def _unless(moves: Callable[[str], bool], params: object) -> Any:
    """Which leaves stay as they are."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not moves(path_name(path)), params)


def _decayed(params: object) -> Any:
    """Which leaves weight decay pulls on."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path_name(path).endswith(DECAYED), params)


def _muon_or_adamw(params: object) -> Any:
    """Which of the two updates a leaf."""

    def label(path: tuple[object, ...], _: object) -> str:
        name = path_name(path)
        return "muon" if name.endswith(LAYER_MATRICES) and not name.startswith("lm_head.") else "adamw"

    return jax.tree_util.tree_map_with_path(label, params)


def _last_two(tree: object) -> Any:
    """That the last two dimensions of a leaf are a matrix, and the one before, if any, counts layers."""
    return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), tree)


def _as_large_as_adamw(update: Float[Array, "*layers I O"]) -> Float[Array, "*layers I O"]:
    """An update whose singular values are near 1, scaled so that its root mean square is that of AdamW's."""
    return update * (_ADAMW_RMS * math.sqrt(max(update.shape[-2:])))


def _each_matrix(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation without state, applied to the parameter of each layer where an array holds those of all."""

    def update(updates: object, params: object) -> Any:
        def alone(update: Array, param: Array) -> Any:
            return transform.update(update, transform.init(param), param)[0]

        def leaf(path: tuple[object, ...], update: Array, param: Array) -> Array:
            stacked = is_stacked(path_name(path))
            return (jax.vmap(alone) if stacked else alone)(update, param)

        return jax.tree_util.tree_map_with_path(leaf, updates, params)

    return optax.stateless(update)
