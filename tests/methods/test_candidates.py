"""Training on true labels over an example's candidates: what a batch says of each answer, and the loss over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fit_jax.methods.candidates import NEVER, CandidateLoss, CandidateSampler
from fit_jax.training.objective import TargetScores

from ..closeness import assert_close
from .candidate_rows import candidate_rows, softmax


@pytest.fixture(scope="module")
def rows(task, encoder):
    """Four examples, each with a prior of its own and its label for a group."""
    examples = task.splits["train"].examples[:4]
    priors = {e.uid: np.log(softmax(np.arange(2.0) * (n - 1))) for n, e in enumerate(examples)}
    sampler = CandidateSampler(examples, 0, prior=lambda e: priors[e.uid], group=lambda e: e.label + 1)
    return candidate_rows(sampler, encoder, [0, 1, 2, 3]), examples, priors


def losses(rows, log_prob):
    scores = TargetScores(jnp.asarray(log_prob, jnp.float32), jnp.zeros(log_prob.shape, bool))
    return jax.tree.map(np.asarray, jax.jit(CandidateLoss().losses)(scores, rows.batch))


def test_a_batch_says_of_each_answer_whose_it_is_and_of_each_true_one_its_group(rows):
    rows, examples, priors = rows
    batch = rows.batch
    unused = np.ones(batch.owner.shape, bool)
    for candidates in rows.candidates:
        example, row = examples[candidates.number], candidates.row
        slots = [int(batch.rows.target_slot[row, targets[0]]) for targets in candidates.targets]
        unused[row, slots] = False
        assert len(set(batch.owner[row, slots])) == 1
        assert_close(batch.prior[row, slots], priors[example.uid], 1e-6)
        assert batch.chosen[row, slots].tolist() == [float(c == example.label) for c in range(len(slots))]
        assert batch.group[row, slots[example.label]] == example.label + 1
    owners = {(c.row, int(batch.owner[c.row, batch.rows.target_slot[c.row, c.targets[0][0]]])) for c in rows.candidates}
    assert len(owners) == len(rows.candidates) == batch.examples
    assert (batch.prior[unused] == np.float32(NEVER)).all()
    assert not batch.chosen[unused].any()


def test_an_example_is_right_where_no_candidate_is_likelier_than_the_true_one(rows):
    rows, examples, priors = rows
    seen = set()
    for seed in range(6):
        log_prob = rows.random_log_probs(seed)
        found = losses(rows, log_prob)
        assert found.correct.sum() == found.correct[rows.batch.chosen > 0].sum()
        for candidates in rows.candidates:
            example, row = examples[candidates.number], candidates.row
            expected = (candidates.scores(log_prob) + priors[example.uid]).argmax() == example.label
            slot = rows.batch.rows.target_slot[row, candidates.targets[example.label][0]]
            assert found.correct[row, slot] == expected
            seen.add(bool(expected))
    assert seen == {True, False}


def test_very_unlikely_answers_have_a_finite_loss_and_gradient(rows):
    rows, _, _ = rows
    log_prob = jnp.asarray(1e4 * rows.random_log_probs(0), jnp.float32)

    def total(log_prob):
        scores = TargetScores(log_prob, jnp.zeros(log_prob.shape, bool))
        return CandidateLoss().losses(scores, rows.batch).loss.sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(log_prob)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() == pytest.approx(1)  # what is certain and wrong is pushed with full force
