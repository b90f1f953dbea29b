import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.config import OptimizerConfig
from fit_jax.errors import InputError
from fit_jax.training.optimizer import make_optimizer, make_schedule


def test_schedule_warms_up_then_follows_a_cosine():
    schedule = make_schedule(OptimizerConfig(learning_rate=2.0, warmup=0.1, final=0.25), 100)
    rates = np.array([schedule(jnp.int32(step)) for step in range(100)])
    np.testing.assert_allclose(rates[:10], np.linspace(0.2, 2.0, 10), rtol=1e-6)
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[55] == pytest.approx((2.0 + 0.5) / 2, rel=1e-5)
    assert 0.5 <= rates[-1] < 0.51


def test_no_warm_up_starts_at_the_peak():
    assert make_schedule(OptimizerConfig(learning_rate=1.0, warmup=0.0), 5)(jnp.int32(0)) == 1.0


def test_weight_decay_spares_norms_biases_and_magnitudes():
    names = ("kernel", "embedding", "lora_a", "lora_b", "scale", "bias", "lora_magnitude")
    params = {name: jnp.ones((2,)) for name in names}
    transform = make_optimizer(OptimizerConfig(weight_decay=0.5, warmup=0.0), 10).transform
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    assert {name for name in names if np.any(updates[name])} == {"kernel", "embedding", "lora_a", "lora_b"}


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
