"""The answer-only head against a plain log-softmax, and that no array of all logits exists."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.models.head import CHUNK, target_log_probs

from ..closeness import assert_close


@pytest.mark.parametrize("targets", [1, 2 * CHUNK + 5])
@pytest.mark.parametrize("tied", [True, False])
def test_log_probs_and_gradients_equal_plain_log_softmax(tiny, build, targets, tied):
    graphdef, state = build(tiny, tied=tied, logit_softcap=4.0)
    hidden = jax.random.normal(jax.random.key(0), (2, targets, tiny.width))
    ids = jax.random.randint(jax.random.key(1), (2, targets), 0, tiny.vocab_size)

    def chunked(state, hidden):
        return target_log_probs(nnx.merge(graphdef, state), hidden, ids)

    def plain(state, hidden):
        logits = nnx.merge(graphdef, state).logits(hidden)
        log_probs = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(log_probs, ids[:, :, None], axis=-1)[:, :, 0], logits.argmax(-1) == ids

    got, expected = jax.jit(chunked)(state, hidden), jax.jit(plain)(state, hidden)
    assert_close(got[0], expected[0], tolerance=1e-5)
    np.testing.assert_array_equal(got[1], expected[1])

    def gradients(function):
        return jax.jit(jax.grad(lambda *a: jnp.sin(function(*a)[0]).sum(), argnums=(0, 1)))(state, hidden)

    jax.tree.map(lambda a, b: assert_close(a, b, tolerance=1e-4), gradients(chunked), gradients(plain))


def test_no_array_holds_the_logits_of_a_row(tiny, build):
    """Looks at every shape of the compiled gradient program."""
    graphdef, state = build(tiny)
    targets = 3 * CHUNK
    hidden = jnp.zeros((2, targets, tiny.width))
    ids = jnp.zeros((2, targets), jnp.int32)

    def loss(state, hidden):
        return target_log_probs(nnx.merge(graphdef, state), hidden, ids)[0].sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(state, hidden).compile().as_text()
    sizes = [np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"f32\[([\d,]+)\]", text)]
    assert max(sizes) <= 2 * CHUNK * tiny.vocab_size < 2 * targets * tiny.vocab_size
