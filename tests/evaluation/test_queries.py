"""Questions of examples, and what an answer to them counts as."""

import numpy as np

from fit_jax.evaluation import metrics
from fit_jax.evaluation.queries import answered, ask
from fit_jax.focus.example import Example

from .predictions import prediction


def test_ties_go_to_the_first_candidate():
    assert prediction(confidence=0.5).prediction == 0
    assert np.isclose(metrics.probabilities(prediction(confidence=0.5).log_probs).sum(), 1)


def test_examples_without_a_spurious_feature_are_asked_the_other_types(task):
    plain = Example("plain", {"text": "fine"}, ("a", "b"), 0, {})
    queries = ask(task.text, "iid", plain, ("train",), 0).queries
    assert [q.focus for q in queries] == ["none", "focus(core)"]
    assert answered(queries[0], [-1.0, -2.0]).value == ""
