"""The hash behind weights and dropout is fair, and independent between elements, numbers and seeds."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.models.hash_random import Seed, dropout

SEED = Seed(jnp.array([7, 11], jnp.uint32))


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    y = np.asarray(dropout(jnp.ones((300, 1000)), rate, SEED))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    assert (y == 0).mean() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / y.size) ** 0.5)
    # Rows and columns are as spread as independent draws would be.
    for axis in (0, 1):
        share = (y == 0).mean(axis=axis)
        assert share.std() == pytest.approx((rate * (1 - rate) / y.shape[axis]) ** 0.5, rel=0.2)


def test_bits_of_neighbours_folds_and_seeds_are_uncorrelated():
    def signs(seed):
        bits = np.asarray(seed.bits((4096,)))
        return ((bits[:, None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float32) * 2 - 1

    a = signs(SEED)
    others = [signs(SEED.fold(0)), signs(SEED.fold(1)), signs(Seed(jnp.array([8, 11], jnp.uint32))), np.roll(a, 1, 0)]
    assert abs(a.mean(axis=0)).max() < 5 / 64
    for one, other in combinations([a, *others], 2):
        assert abs((one * other).mean(axis=0)).max() < 5 / 64


def test_weights_have_the_asked_spread_in_every_layer():
    layers = jax.vmap(lambda n: SEED.fold(n).weights((64, 64), 0.3, jnp.float32))(jnp.arange(3))
    np.testing.assert_allclose(layers.std(axis=(1, 2)), 0.3, rtol=0.03)
    assert abs(np.corrcoef(layers.reshape(3, -1))[0, 1:]).max() < 0.06
    assert float(jnp.abs(SEED.uniform((1000,), 2.0)).max()) <= 2.0


def test_the_draw_does_not_depend_on_the_mesh():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    whole = SEED.bits((3, 16))
    np.testing.assert_array_equal(jax.jit(lambda: SEED.bits((3, 16)), out_shardings=split)(), whole)
