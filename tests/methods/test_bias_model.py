"""The bias-only model: what it reads, what it learns, and that it is no surer of an example than of a new one."""

import numpy as np
import pytest

from fit_jax.focus.example import Example, Spurious
from fit_jax.methods.bias_model import cross_fitted

from ..closeness import assert_close


def feature_only(count: int, rho: float, labels: int = 2) -> list[Example]:
    """Examples whose value agrees with the label in `rho` of them; the text tells the label, or only noise."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        value = n % labels
        label = value if rng.random() < rho else (value + 1 + int(rng.integers(labels - 1))) % labels
        slots = {"text": f"label {label}", "noise": str(n)}
        found.append(Example(f"e{n}", slots, tuple("abc"[:labels]), label, {"s": Spurious(f"v{value}", value)}))
    return found


@pytest.mark.parametrize(("rho", "labels"), [(0.9, 2), (0.8, 3)])
def test_of_a_value_it_learns_how_often_the_label_agrees(rho, labels):
    examples = feature_only(1200, rho, labels)
    bias = cross_fitted(examples, (), 0)
    realised = np.mean([e.label == e.spurious["s"].label for e in examples])
    assert bias.accuracy == pytest.approx(realised)
    for example, log_probs in zip(examples, bias.log_probs):
        expected = np.full(labels, (1 - realised) / (labels - 1))
        expected[example.spurious["s"].label] = realised
        assert_close(np.exp(log_probs), expected, 0.04)
    entropy = -realised * np.log(realised) - (1 - realised) * np.log((1 - realised) / (labels - 1))
    assert bias.log_likelihood == pytest.approx(-entropy, abs=0.02)


def test_where_there_is_no_bias_it_knows_nothing():
    bias = cross_fitted(feature_only(1200, 0.5), (), 0)
    assert_close(np.exp(np.stack(bias.log_probs)), np.full((1200, 2), 0.5), 0.12)


def test_it_reads_the_slots_that_are_declared_and_no_other():
    examples = feature_only(400, 0.5)
    assert cross_fitted(examples, ("text",), 0).accuracy == 1
    assert cross_fitted(examples, (), 0).accuracy < 0.65


def test_it_is_not_sure_of_what_it_could_only_learn_by_heart():
    """Every example has a word of its own, which tells its label to whoever has seen it."""
    bias = cross_fitted(feature_only(300, 0.5), ("noise",), 0)
    assert np.exp(np.stack(bias.log_probs)).max() < 0.7
    assert bias.log_likelihood > np.log(0.5) - 0.05


def test_with_answers_of_its_own_it_reads_question_and_answers():
    """The stereotyped person is named by a question, at whichever place among the answers."""
    rng = np.random.default_rng(0)
    examples = []
    for n in range(600):
        asked, people = ("Who stole?", "Who helped?")[n % 2], ["the boy", "the nurse", "unknown"]
        target = people[n % 2]
        answers = tuple(people[i] for i in rng.permutation(3))
        label = answers.index(target) if rng.random() < 0.9 else int(rng.integers(3))
        slots = {"context": f"It was {answers[label]}.", "question": asked}
        spurious = {"s": Spurious("v", answers.index(target))}
        examples.append(Example(f"q{n}", slots, answers, label, spurious, own_answers=True))
    bias = cross_fitted(examples, ("question",), 0)
    stereotyped = [p.argmax() == e.spurious["s"].label for p, e in zip(bias.log_probs, examples)]
    assert np.mean(stereotyped) > 0.98
    assert bias.accuracy == pytest.approx(np.mean([e.label == e.spurious["s"].label for e in examples]), abs=0.02)
    assert all(p.shape == (3,) and np.exp(p).sum() == pytest.approx(1) for p in bias.log_probs)
