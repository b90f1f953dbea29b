"""Made-up answers of two methods and three seeds."""

import numpy as np
import pytest

from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.queries import answered, ask
from fit_jax.experiment.analysis import MethodAnswer

SEEDS = (0, 1, 2)
SPURIOUS_SHARE = {"fit": 1.0, "sft_y": 0.25}


def evaluation_of(task, method: str, seed: int) -> Evaluation:
    """A method that is right on core types, and on its share of spurious ones."""
    rng = np.random.default_rng(seed)
    result = Evaluation([], [])
    for split in ("iid", "flipped"):
        for example in task.splits[split].examples:
            for query in ask(task.text, split, example, ("heldout",), 0).queries:
                right = kind_of(query.focus) == "core" or rng.random() < SPURIOUS_SHARE[method]
                choice = query.label if right else 1 - query.label
                result.queries.append(query)
                result.predictions.append(answered(query, [-0.1 if i == choice else -2.5 for i in range(2)]))
    return result


@pytest.fixture(scope="session")
def evaluations(task):
    return {(method, seed): evaluation_of(task, method, seed) for method in SPURIOUS_SHARE for seed in SEEDS}


@pytest.fixture(scope="session")
def answers(evaluations):
    return [MethodAnswer(*key, p) for key, e in evaluations.items() for p in e.predictions]
