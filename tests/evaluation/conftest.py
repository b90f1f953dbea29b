"""Answers made by rule, shared by the tests of what is made of them."""

from dataclasses import replace

import pytest

from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.queries import answered, ask
from fit_jax.focus.example import Example

from .chosen_answers import evaluated

NASTY = '</script><img src=x onerror=alert(1)><!-- <script> & \u2028 "quotes" | $cap'


@pytest.fixture(scope="session")
def evaluation(task) -> Evaluation:
    """Answers as a model would give them that is right at three x of four."""
    result = Evaluation([], [])
    for split in ("iid", "flipped", "shifted_iid"):
        for number, example in enumerate(task.splits[split.removeprefix("shifted_")].examples):
            text = example.slots["text"] if number else NASTY
            example = Example(f"{split}-{number}", {"text": text}, example.candidates, example.label, example.spurious)
            for query in ask(task.text, split, example, ("train", "heldout"), 0).queries:
                answer = query.label if number % 4 else 1 - query.label
                result.queries.append(query)
                result.predictions.append(answered(query, [-0.1 if i == answer else -2.5 for i in range(2)]))
    return result


@pytest.fixture(scope="session")
def task_with_shift(task):
    shifted = replace(task.splits["iid"], name="shifted_iid")
    return replace(task, splits={**task.splits, "shifted_iid": shifted})


@pytest.fixture(scope="session")
def obedient(task) -> Evaluation:
    return evaluated(task, lambda q: q.label)


@pytest.fixture(scope="module")
def asked(task):
    """All questions about each text under three uids, in two paraphrases of both sets."""
    return [
        ask(task.text, split, replace(e, uid=f"{e.uid}-{n}"), ("train", "heldout"), 0, each=2)
        for split in ("iid", "high", "low", "flipped")
        for e in task.splits[split].examples
        for n in range(3)
    ]
