"""The knob: prompts lose their instruction, and a direction's component is set to what the instruction asked for."""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import stack
from fit_jax.errors import InputError
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.queries import ask, encode
from fit_jax.methods import knob
from fit_jax.methods.intervention import AWAY, TOWARDS, intervened, unmarked
from fit_jax.methods.knob import STRENGTHS, Direction, best_knob, found_directions, layers_that_carry
from fit_jax.methods.steering import nothing
from fit_jax.methods.switch import opposite_pairs
from fit_jax.methods.training_free import Base
from fit_jax.models.decoder import Decoder
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close

U = np.full(32, 32**-0.5, np.float32)
SIGNS = np.where(np.arange(32) % 2, 1, -1).astype(np.float32)


@pytest.fixture(scope="module")
def base(decoder, encoder) -> Base:
    graphdef, state = nnx.split(decoder)
    return Base(graphdef, (state,), make_mesh(MeshConfig(), jax.devices()[:1]), encoder, rows=8)


@pytest.fixture
def choice(base, task, monkeypatch):
    """The options that a knob is chosen from, and how it prepares prompts."""
    chosen = []
    monkeypatch.setattr(knob, "best_intervention", lambda *given: chosen.append(given[1:]) or (None, ""))
    best_knob(base, task, [Direction(0, U, core=-1.0, spurious=3.0)], 0)
    groups, *choice = chosen[0]
    assert {g.queries[0].split for g in groups} == {"validation"}  # and no test example
    return choice


def test_values_lie_around_the_middle_of_the_mean_components(choice):
    options, _ = choice
    assert len(options) == len(STRENGTHS)
    for (name, change), strength in zip(options.items(), STRENGTHS):
        assert name == f"layer 1 of 2, strength {strength:g}"
        assert_close(change.knob.directions, [U, np.zeros(32)], 1e-6)
        assert_close([change.knob.towards, change.knob.away], [1 + 2 * strength, 1 - 2 * strength], 1e-6)


def test_prompts_lose_their_instruction_and_are_marked_by_what_it_asked_for(choice, task, encoder):
    _, prepare = choice
    group = ask(task.text, "iid", task.splits["iid"].examples[0], ("train",), 0)
    (plain,) = encoder.encode([group.queries[0].example], [""])
    kinds = {q.instruction: kind_of(q.focus) for q in group.queries}
    seen = set()
    for instruction, prompt in zip(group.instructions, prepare(group, next(encode(encoder, [group]))), strict=True):
        kind = (TOWARDS if kinds[instruction] == "spurious" else AWAY) if instruction else 0
        rows = stack([[lay_out([prompt], [[0]])]], len(plain.prompt) + len(plain.answers[0]), 8)[0]
        tokens, marks = unmarked(rows)
        np.testing.assert_array_equal(tokens.tokens[0, : len(plain.prompt)], plain.prompt)
        assert marks[0, : len(plain.prompt)].tolist() == [0] * (len(plain.prompt) - 1) + [kind]
        seen.add(kind)
    assert seen == {0, TOWARDS, AWAY}


def test_mean_components_are_those_at_the_ends_of_core_and_of_spurious_prompts(
    base, task, decoder, encoder, monkeypatch
):
    monkeypatch.setattr(knob, "learnt_directions", lambda base, pairs, layers, seed: [U, U[::-1] * SIGNS])
    pairs = opposite_pairs(task, "validation", "train", 0)
    directions = found_directions(base, pairs, [0, 1], seed=0)
    call = jax.jit(lambda rows: intervened(decoder, rows, jnp.zeros_like(rows.tokens), nothing(base))[1])
    for direction, side in product(directions, (0, 1)):
        queries = [pair.queries[side] for pair in pairs]
        prompts = encoder.encode([q.example for q in queries], [q.instruction for q in queries])
        rows, _ = stack([[lay_out([p], [[0]])] for p in prompts], max(map(len, prompts)), 4)
        after = np.asarray(call(rows))[direction.layer, :, 0]
        component = (direction.core, direction.spurious)[side]
        assert_close(component, (after @ direction.vector).mean(), 1e-4)
    assert all(direction.core != direction.spurious for direction in directions)


@pytest.mark.parametrize(
    ("shares", "layers"),
    [((0.1, 0.8, 0.9, 0.45, 0.2), [1, 2, 3]), ((1.0,) * 5, [0, 1, 2, 3, 4]), ((1.0,) * 11, [0, 2, 4, 6, 8, 10])],
)
def test_only_layers_that_carry_the_switch_are_tried_and_not_too_many(base, monkeypatch, shares, layers):
    def switched(base, pairs, options):
        where = [int(np.flatnonzero(change)[0]) for change in options.values()]
        return {
            name: [SimpleNamespace(correct=i < 100 * shares[layer]) for i in range(100)]
            for name, layer in zip(options, where)
        }

    deep = nothing(base)._replace(vectors=jnp.zeros((len(shares) + 1, 32)))
    monkeypatch.setattr(knob, "nothing", lambda base: deep)
    monkeypatch.setattr(knob, "exchanges", lambda base, whole: np.eye(len(shares))[whole[0]])
    monkeypatch.setattr(knob, "switched", switched)
    assert layers_that_carry(base, []) == layers


def test_a_model_of_one_layer_has_no_knob(base, task, decoder):
    shape = replace(decoder.config, layers=1)
    graphdef, state = nnx.split(Decoder(shape, rngs=nnx.Rngs(0)))
    with pytest.raises(InputError, match="one layer"):
        layers_that_carry(replace(base, graphdef=graphdef, states=(state,)), opposite_pairs(task, "train", "train", 0))
