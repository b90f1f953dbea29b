"""The gated delta rule along paths against its recurrence, token by token in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.models.attention import Scope
from fit_jax.models.delta_rule import BLOCK, delta_rule
from fit_jax.models.token_paths import convolved, paths_of

from ..closeness import assert_close

K, H, KEY, VALUE, TAPS = 2, 4, 6, 5, 3


def rows(visible_until):
    """The scope of rows with such ends of branches."""
    until = jnp.asarray(np.atleast_2d(visible_until), jnp.int32)
    return Scope.of_rows(jnp.zeros_like(until), until)


def ancestors(until, token):
    return [j for j in range(token + 1) if token < until[j]]


def random_tree(generator, tokens):
    """Ends of a random forest with padding here and there."""
    ends, open_until = [], [tokens]
    for token in range(tokens):
        while open_until[-1] <= token:
            open_until.pop()
        branches = generator.random() < 0.3
        ends.append(int(generator.integers(token + 1, open_until[-1] + 1)) if branches else open_until[-1])
        open_until.append(ends[-1])
    return np.where(generator.random(tokens) < 0.1, 0, ends)


def draw(generator, tokens, fastest=1.0):
    """Queries, keys, values, log decays and betas of one row."""
    q, k = generator.normal(size=(2, 1, tokens, K, KEY)).astype(np.float32)
    v = generator.normal(size=(1, tokens, H, VALUE)).astype(np.float32)
    decay = -fastest * generator.random((1, tokens, H)).astype(np.float32) ** 2
    return q, k, v, decay, generator.random((1, tokens, H)).astype(np.float32)


def recurrence(q, k, v, decay, beta, until):
    """The rule of each token's own path, in float64; zeros of padding."""
    q, k, v, decay, beta = (np.asarray(x[0], np.float64) for x in (q, k, v, decay, beta))
    q, k = (x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) for x in (q, k))
    q = q * KEY**-0.5
    found, states = np.zeros(v.shape), {None: np.zeros((H, KEY, VALUE))}
    for token in range(len(v)):
        path = ancestors(until, token)
        if token not in path:
            continue
        for head in range(H):
            at = k[token, head // (H // K)]
            state = np.exp(decay[token, head]) * states[path[-2] if len(path) > 1 else None][head]
            state = state + np.outer(at, beta[token, head] * (v[token, head] - state.T @ at))
            states.setdefault(token, np.zeros((H, KEY, VALUE)))[head] = state
            found[token, head] = state.T @ q[token, head // (H // K)]
    return found


@functools.partial(jax.jit, static_argnames="taps")
def run(parts, scope, index=None, state=None, taps=TAPS):
    return delta_rule(*parts, paths_of(scope, taps), index, state)


@pytest.mark.parametrize("tokens", [1, 5, BLOCK, 2 * BLOCK + 9])
def test_random_forests_equal_the_recurrence(tokens):
    generator = np.random.default_rng(tokens)
    until, parts = random_tree(generator, tokens), draw(generator, tokens)
    found, state = run(parts, rows(until))
    valid = until > np.arange(tokens)
    assert state is None
    assert_close(np.asarray(found)[0][valid], recurrence(*parts, until)[valid], 1e-5)


def test_tokens_asked_for_are_those_of_all():
    generator = np.random.default_rng(0)
    until, parts = random_tree(generator, 80), draw(generator, 80)
    index = np.array([[79, 3, 3, 70, 0]], np.int32)
    assert_close(run(parts, rows(until), index)[0][0], np.asarray(run(parts, rows(until))[0][0])[index[0]], 1e-6)


def test_equal_keys_and_long_rows_of_strong_decay_stay_exact():
    """A series of powers would cancel where keys are alike, and plain sums of decays would round."""
    generator = np.random.default_rng(1)
    tokens = 1280
    q, k, v, decay, beta = draw(generator, tokens, fastest=30.0)
    k[:, :, 0], beta[..., : H // K] = k[:, :1, 0], 1
    decay[..., : H // K] *= 1e-4
    decay[:, -40:] *= 1e-3
    until = np.full(tokens, tokens)
    index = np.arange(tokens - 6, tokens, dtype=np.int32)[None]
    found = run((q, k, v, decay, beta), rows(until), index)[0][0]
    assert_close(found, recurrence(q, k, v, decay, beta, until)[-6:], 1e-4)


def test_gradients_are_those_of_the_recurrence_and_none_comes_from_padding():
    generator = np.random.default_rng(2)
    tokens = BLOCK + 7
    until, parts = random_tree(generator, tokens), draw(generator, tokens)
    valid = until > np.arange(tokens)
    factors = generator.normal(size=(tokens, H, VALUE)) * valid[:, None, None]

    def of(parts):
        return (delta_rule(*parts, paths_of(rows(until), TAPS))[0][0] * factors).sum()

    gradients = jax.jit(jax.grad(of))(tuple(map(jnp.asarray, parts)))
    for number, gradient in enumerate(gradients):
        gradient = np.asarray(gradient)
        assert np.isfinite(gradient).all()
        assert not gradient[0][~valid].any()
        direction = generator.normal(size=gradient.shape)
        ends = []
        for step in (1e-4, -1e-4):
            moved = [np.asarray(part, np.float64) for part in parts]
            moved[number] = moved[number] + step * direction
            ends.append((recurrence(*moved, until) * factors).sum())
        assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=2e-3, abs=1e-3)


def test_a_row_read_in_parts_equals_the_whole():
    generator = np.random.default_rng(3)
    tokens, first = 90, 70
    parts = draw(generator, tokens)
    until = np.where(generator.random(tokens) < 0.2, 0, tokens)
    whole = np.asarray(run(parts, rows(until))[0])
    state, found = np.zeros((1, H, KEY, VALUE), np.float32), []
    for part in (slice(0, first), slice(first, first + 1), slice(first + 1, tokens)):
        size = part.stop - part.start
        scope = rows(np.where(until[part] > 0, size, 0))
        given, state = run(tuple(x[:, part] for x in parts), scope, state=state)
        found.append(np.asarray(given))
    valid = until > 0
    assert_close(np.concatenate(found, axis=1)[:, valid], whole[:, valid], 1e-5)


@pytest.mark.parametrize("taps", [0, 1, 3])
def test_the_convolution_reads_the_nearest_ancestors(taps):
    generator = np.random.default_rng(4)
    tokens = 30
    until = random_tree(generator, tokens)
    x, before = generator.normal(size=(tokens, 2)), generator.normal(size=(taps, 2))
    weights = generator.normal(size=(2, taps + 1))
    paths = paths_of(rows(until), taps)
    found = np.asarray(convolved(jnp.concatenate([before, x])[None], jnp.asarray(weights), paths))[0]
    line = {}
    for token in range(tokens):
        path = [j for j in ancestors(until, token) if j < token]
        inputs = np.concatenate([before, x[path], x[[token]]])[-taps - 1 :]
        line[token] = (inputs * weights.T).sum(0)
    assert_close(found, np.stack(list(line.values())), 1e-5)
    last = max(np.flatnonzero(until > np.arange(tokens)))
    tail = np.concatenate([before, x[ancestors(until, last)]])[len(before) + len(ancestors(until, last)) - taps :]
    np.testing.assert_array_equal(np.concatenate([before, x])[np.asarray(paths.tail)[0]], tail)
