"""Where a model switches: what is asked, what an exchange changes, and that a direction is learnt that carries more."""

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.evaluation.evaluator import answer
from fit_jax.methods.steering import nothing
from fit_jax.methods.switch import exchanges, learnt_directions, opposite_pairs, switched, unit_vectors
from fit_jax.methods.training_free import Base
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close


@pytest.fixture(scope="module")
def base(decoder, encoder) -> Base:
    """A model of two layers whose predictions are far from uniform."""
    model = nnx.clone(decoder)
    model.embed.embedding[...] *= 40
    graphdef, state = nnx.split(model)
    return Base(graphdef, (state,), make_mesh(MeshConfig(), jax.devices()[:1]), encoder, rows=8)


@pytest.fixture(scope="module")
def pairs(task):
    return opposite_pairs(task, "validation", "train", 0)


def likeliness(predictions) -> float:
    """Mean log p of the other prompt's answer."""
    return float(np.mean([p.log_probs[p.label] for p in predictions]))


def test_a_pair_asks_about_one_text_for_labels_that_differ(pairs, task):
    assert {tuple(q.focus for q in p.queries) for p in pairs} == {
        ("focus(core)", "focus(spurious)"),
        ("focus(core) & ignore(spurious)", "focus(spurious) & ignore(core)"),
    }
    for pair in pairs:
        core, spurious = pair.queries
        assert core.example is spurious.example
        assert (core.label, spurious.label) == (core.example.label, core.example.spurious["keyword"].label)
        assert core.label != spurious.label
    (other,) = {q.paraphrases for p in opposite_pairs(task, "iid", "heldout", 0) for q in p.queries}
    assert other == "heldout"


def test_without_an_exchange_answers_are_the_models_own_held_against_the_other_label(base, pairs):
    (found,) = switched(base, pairs, {"": exchanges(base)}).values()
    plain = [p for ps in answer(pairs, base.plain()) for p in ps]
    assert_close([p.log_probs for p in found], [p.log_probs for p in plain], 1e-5)
    assert [p.label for p in found] == [q.label for pair in pairs for q in pair.queries[::-1]]


def test_the_learnt_direction_makes_the_other_answer_likelier_than_random_ones_do(base, pairs):
    (learnt,) = learnt_directions(base, pairs, [0], seed=0)
    assert_close(np.linalg.norm(learnt), 1.0, 1e-5)
    vectors = {"learnt": learnt, **{str(n): v for n, v in enumerate(unit_vectors(4, 32, 1))}}
    changes = {n: exchanges(base, directions=nothing(base).vectors.at[0].set(v)) for n, v in vectors.items()}
    reached = {n: likeliness(given) for n, given in switched(base, pairs, changes).items()}
    best = reached.pop("learnt")
    (before,) = map(likeliness, switched(base, pairs, {"": exchanges(base)}).values())
    assert best > before
    assert best - before > 2 * (max(reached.values()) - before)


def test_random_directions_have_length_one_and_follow_the_seed():
    drawn = unit_vectors(5, 16, 3)
    assert_close(np.linalg.norm(drawn, axis=1), np.ones(5), 1e-6)
    np.testing.assert_array_equal(drawn, unit_vectors(5, 16, 3))
    assert abs(drawn @ drawn.T - np.eye(5)).max() < 0.95
    assert not np.array_equal(drawn, unit_vectors(5, 16, 4))
