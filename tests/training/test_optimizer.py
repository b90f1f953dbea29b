from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import MeshConfig, OptimizerConfig, load_config
from fit_jax.errors import InputError
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree, named_leaves
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.optimizer import make_optimizer, make_schedule
from fit_jax.training.state import TrainState
from tests.closeness import assert_close

NAMES = get_args(get_type_hints(OptimizerConfig)["name"])


def rates_of(steps: int, **fields) -> np.ndarray:
    schedule = make_schedule(OptimizerConfig(learning_rate=2.0, warmup=0.1, final=0.25, **fields), steps)
    return np.array([schedule(jnp.int32(step)) for step in range(steps)])


def params() -> dict:
    """A tree as a decoder's: arrays that hold three layers, and what stands beside the layers."""
    rng = np.random.default_rng(0)
    shapes = {
        "blocks": {"mlp": {"up_proj": {"kernel": (3, 128, 144)}}, "mlp_norm": {"scale": (3, 128)}},
        "embed": {"embedding": (160, 128)},
        "lm_head": {"kernel": (128, 160)},
    }
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda node: isinstance(node, tuple))


def gradients(step: int, tree: dict) -> dict:
    rng = np.random.default_rng(step + 1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), tree)


def trained(transform, tree: dict, state, steps) -> tuple:
    """Parameters and state after some steps, in one program a step."""
    update = jax.jit(transform.update)
    for step in steps:
        updates, state = update(gradients(step, tree), state, tree)
        tree = jax.tree.map(jnp.add, tree, updates)
    return tree, state


def test_schedule_warms_up_then_follows_a_cosine():
    rates = rates_of(100)
    np.testing.assert_allclose(rates[:10], np.linspace(0.2, 2.0, 10), rtol=1e-6)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[55] == pytest.approx((2.0 + 0.5) / 2, rel=1e-5)
    assert 0.5 <= rates[-1] < 0.51


def test_schedules_fall_as_they_are_named():
    warm = np.linspace(0.2, 2.0, 10)
    falls = {
        "linear": np.linspace(2.0, 0.5, 90, endpoint=False),
        "constant": np.full(90, 2.0),
        "wsd": np.concatenate([np.full(60, 2.0), np.linspace(2.0, 0.5, 30, endpoint=False)]),
    }
    for name, rates in falls.items():
        found = rates_of(100, schedule=name, decay=0.3)
        np.testing.assert_allclose(found, np.concatenate([warm, rates]), rtol=1e-6, err_msg=name)


def test_a_decay_that_begins_before_the_warm_up_ends_is_wrong_input():
    with pytest.raises(InputError, match=r"warmup 0.3 and optimizer.decay 0.8 are more than all steps"):
        make_optimizer(OptimizerConfig(schedule="wsd", warmup=0.3, decay=0.8), 10)


@pytest.mark.parametrize("field", ["name", "schedule"])
def test_unknown_names_are_wrong_input(field):
    with pytest.raises(InputError, match=f"optimizer.{field}.*'?sgd'?.*one of"):
        load_config([f"--optimizer.{field}", "sgd"])


def test_no_warm_up_starts_at_the_peak():
    assert make_schedule(OptimizerConfig(learning_rate=1.0, warmup=0.0), 5)(jnp.int32(0)) == 1.0


@pytest.mark.parametrize("optimizer", NAMES)
def test_weight_decay_is_a_factor_on_the_rate_and_spares_norms_biases_and_magnitudes(optimizer):
    names = ("kernel", "embedding", "lora_a", "lora_b", "scale", "bias", "lora_magnitude")
    params = {name: jnp.ones((2, 2)) for name in names}
    config = OptimizerConfig(name=optimizer, learning_rate=1e-2, weight_decay=0.5, warmup=0.0)
    transform = make_optimizer(config, 10).transform
    updates, _ = jax.jit(transform.update)(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    for name in names:
        np.testing.assert_allclose(updates[name], -5e-3 if name in names[:4] else 0.0, rtol=1e-5, err_msg=name)


def test_lion_steps_by_the_sign_of_its_mean():
    tree = {"kernel": jnp.ones((2, 2))}
    config = OptimizerConfig(name="lion", learning_rate=1e-2, weight_decay=0.0, beta1=0.5, beta2=0.75, warmup=0.0)
    transform = make_optimizer(config, 10**6).transform
    first, state = transform.update({"kernel": jnp.full((2, 2), 0.1)}, transform.init(tree), tree)
    # The mean, 0.025, outweighs the second gradient: 0.5 * 0.025 > 0.5 * 0.02.
    second, _ = transform.update({"kernel": jnp.full((2, 2), -0.02)}, state, tree)
    for updates in (first, second):
        np.testing.assert_allclose(updates["kernel"], -1e-2, rtol=1e-5)


def test_muon_turns_the_matrices_of_layers_and_leaves_the_rest_to_adamw():
    tree = params()
    config = OptimizerConfig(learning_rate=1.0, weight_decay=0.0, warmup=0.0, schedule="constant")
    found = {}
    for name in ("muon", "adamw"):
        transform = make_optimizer(OptimizerConfig(**{**vars(config), "name": name}), 10).transform
        found[name] = named_leaves(jax.jit(transform.update)(gradients(0, tree), transform.init(tree), tree)[0])
    for name, update in found["muon"].items():
        if name == "blocks.mlp.up_proj.kernel":
            # As large as AdamW's updates, 0.2 in the root mean square, and about as large in every direction.
            sizes = np.linalg.svd(update, compute_uv=False) / (0.2 * np.sqrt(144))
            assert 0.3 < sizes.min() < sizes.max() < 1.4
        else:
            np.testing.assert_array_equal(update, found["adamw"][name], err_msg=name)


def test_adafactor_follows_its_paper():
    """Against NumPy, for two updates of one matrix."""
    rng = np.random.default_rng(0)
    weight, rate = rng.normal(size=(128, 130)), 0.1
    config = OptimizerConfig(
        name="adafactor", learning_rate=rate, weight_decay=0.0, warmup=0.0, schedule="constant", clip_norm=1e9
    )
    transform = make_optimizer(config, 10).transform
    tree = {"kernel": jnp.asarray(weight, jnp.float32)}
    state, rows, columns = transform.init(tree), np.zeros(128), np.zeros(130)
    run = jax.jit(transform.update)
    for step in (1, 2):
        gradient = rng.normal(size=weight.shape) * rng.lognormal(size=weight.shape)
        updates, state = run({"kernel": jnp.asarray(gradient, jnp.float32)}, state, tree)
        kept = 1 - step**-0.8
        rows = kept * rows + (1 - kept) * (gradient**2).mean(1)
        columns = kept * columns + (1 - kept) * (gradient**2).mean(0)
        update = gradient / np.sqrt(np.outer(rows, columns) / rows.mean())
        update /= max(1.0, np.sqrt((update**2).mean()))
        expected = -rate * np.sqrt((weight**2).mean()) * update
        np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-4, atol=1e-6 * abs(expected).max())
        weight = weight + np.asarray(updates["kernel"], np.float64)
        tree = {"kernel": tree["kernel"] + updates["kernel"]}
    assert {leaf.shape for leaf in jax.tree.leaves(state)} == {(), (1,), (128,), (130,)}


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_a_layer_is_updated_as_though_it_stood_alone(name):
    tree = {"blocks": params()["blocks"]}
    tree["blocks"]["mlp"]["up_proj"]["kernel"] *= jnp.array([0.1, 1.0, 10.0])[:, None, None]
    grads = gradients(0, tree)
    transform = make_optimizer(OptimizerConfig(name=name, clip_norm=1e9, epsilon=1e-12), 10).transform
    update = jax.jit(transform.update)
    together = named_leaves(update(grads, transform.init(tree), tree)[0])
    for layer in range(3):
        one, its = ({"last_block": jax.tree.map(lambda a: a[layer], t["blocks"])} for t in (tree, grads))  # noqa: B023
        for path, alone in named_leaves(update(its, transform.init(one), one)[0]).items():
            stacked = together[path.replace("last_block", "blocks")][layer]
            np.testing.assert_allclose(stacked, alone, rtol=1e-4, atol=1e-5 * abs(alone).max(), err_msg=path)


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_a_split_state_trains_as_a_whole_one(name):
    transform = make_optimizer(OptimizerConfig(name=name, learning_rate=1e-2), 10).transform
    tree = params()
    whole, _ = trained(transform, tree, transform.init(tree), range(2))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2), jax.devices()[:8])
    split, state = (
        jax.device_put(t, lay_out_tree(jax.eval_shape(lambda: t), mesh).shardings)  # noqa: B023
        for t in (tree, transform.init(tree))
    )
    held = {leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(state) if leaf.ndim == 3}
    assert held == (set() if name == "adafactor" else {(3, 64, 72)})
    found, _ = trained(transform, split, state, range(2))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), found, whole)


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_a_state_from_the_disk_goes_on_bit_for_bit(name, tmp_path):
    transform = make_optimizer(OptimizerConfig(name=name), 10).transform
    straight, _ = trained(transform, params(), transform.init(params()), range(4))
    halfway, state = trained(transform, params(), transform.init(params()), range(2))
    checkpoints = Checkpoints(tmp_path, keep=1, with_frozen=True, cleans=True)
    saved = TrainState(jnp.int32(2), nnx.State(halfway), nnx.State({}), state)
    checkpoints.save(2, saved, {}, best=None)
    checkpoints.wait()
    fresh = TrainState(jnp.int32(0), nnx.State(params()), nnx.State({}), transform.init(params()))
    read = checkpoints.restore(2, fresh)
    checkpoints.close()
    resumed, _ = trained(transform, nnx.to_pure_dict(read.trainable), read.opt_state, range(2, 4))
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)


def test_gradients_are_clipped_by_their_global_norm():
    params = {"kernel": jnp.zeros((2,)), "scale": jnp.zeros((1,))}
    transform = make_optimizer(
        OptimizerConfig(clip_norm=1.0, beta1=0.0, beta2=0.0, warmup=0.0, epsilon=1.0), 10
    ).transform
    large = {"kernel": jnp.array([3e3, 0.0]), "scale": jnp.array([4e3])}
    updates, _ = transform.update(large, transform.init(params), params)
    # With both betas 0 an update is rate * g / (|g| + 1), and g is (0.6, 0.8) after clipping.
    np.testing.assert_allclose(updates["kernel"][0] / updates["scale"][0], (0.6 / 1.6) / (0.8 / 1.8), rtol=1e-5)


@pytest.mark.parametrize("field", ["learning_rate", "warmup", "beta2", "clip_norm"])
def test_values_that_make_no_sense_are_wrong_input(field):
    with pytest.raises(InputError, match=f"optimizer.{field}"):
        make_optimizer(OptimizerConfig(**{field: -1.0}), 10)


def test_only_what_moves_is_updated_and_counts_for_the_norm():
    params = {"head": {"kernel": jnp.ones((2, 2))}, "body": {"kernel": jnp.ones((2, 2))}}
    grads = {"head": {"kernel": jnp.full((2, 2), 1e-3)}, "body": {"kernel": jnp.full((2, 2), 1e6)}}
    config = OptimizerConfig(weight_decay=0.5, warmup=0.0, epsilon=1e-3)
    updates = []
    for moves in (lambda name: name.startswith("head."), lambda name: True):
        transform = make_optimizer(config, 10, moves).transform
        updates.append(transform.update(grads, transform.init(params), params)[0])
    assert not updates[0]["body"]["kernel"].any()
    assert updates[1]["body"]["kernel"].all()
    # Clipped by the whole norm, the head's gradient is lost in epsilon.
    assert float(abs(updates[0]["head"]["kernel"] - updates[1]["head"]["kernel"]).min()) > 1e-4
