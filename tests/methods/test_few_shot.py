"""Few-shot prompts: solved training examples, each with the answer that its own focus instruction asks for."""

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.data.task import Task
from fit_jax.data.tasks.demo import TEXT
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Prompts, Subject
from fit_jax.evaluation.queries import Group, ask
from fit_jax.focus.example import Example, Spurious
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES
from fit_jax.methods.few_shot import METHOD
from fit_jax.methods.training_free import Base
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh


class Shot(NamedTuple):
    text: str
    instruction: str
    answer: str


@pytest.fixture(scope="module")
def base(decoder, params, encoder) -> Base:
    return Base(nnx.graphdef(decoder), params, make_mesh(MeshConfig(data=1), jax.devices()[:1]), encoder, rows=4)


def prepared(subject: Subject, example: Example, *instructions: str) -> Prompts:
    """What the model is shown of an example."""
    none = ask(TEXT, "iid", replace(example, spurious={}), ("train",), 0).queries[0]
    return subject.prepare(Group.of([replace(none, instruction=instruction) for instruction in instructions]), ())


@pytest.fixture
def prompt_of(base, config):
    """The whole few-shot prompt of a test example, under the instruction `Look here.`"""

    def render(task: Task, shots: int, seed: int = 0, place: str = "after", number: int = 0) -> str:
        asked = replace(config, seed=seed, focus=replace(config.focus, place=place))
        subject, _ = METHOD.apply(base, task, asked, shots)
        (prompt,) = prepared(subject, task.splits["iid"].examples[number], "Look here.")
        return subject.encoder.tokenizer.decode(prompt.prompt.tolist(), skip_special_tokens=True)

    return render


def shots_of(prompt: str, task: Task) -> list[Shot]:
    """The solved examples of a prompt; the instruction stands after the input."""
    head, *solved, question = prompt.split("\n---\n")
    assert head == task.text.instruction
    assert question.startswith("Review: ")
    shots = []
    for block in solved:
        text, *instruction, answer = block.split("\n")
        shots.append(Shot(text.removeprefix("Review: "), "".join(instruction), answer.removeprefix("Answer: ")))
    return shots


def test_shots_are_training_examples_and_the_question_is_open(prompt_of, task):
    prompt = prompt_of(task, shots=40)
    shots = shots_of(prompt, task)
    assert len(shots) == len({shot.text for shot in shots}) == 40
    assert {shot.text for shot in shots} <= {e.slots["text"] for e in task.splits["train"].examples}
    assert prompt.endswith(f"Review: {task.splits['iid'].examples[0].slots['text']}\nLook here.\nAnswer:")


def test_each_shot_is_answered_as_its_own_instruction_asks(prompt_of, task):
    by_text = {e.slots["text"]: e for e in task.splits["train"].examples}
    shots = shots_of(prompt_of(task, shots=36), task)
    disagreeing = 0
    for shot in shots:
        example = by_text[shot.text]
        queries = ask(task.text, "train", example, ("train",), 0).queries
        (query,) = (q for q in queries if q.instruction == shot.instruction)
        assert shot.answer == example.candidates[query.label]
        disagreeing += query.label != example.label
    assert disagreeing > 0, "no shot whose focus label differs from the true one"
    assert len({shot.answer for shot in shots}) == 2


@pytest.mark.parametrize("features", [("keyword",), ("keyword", "length")])
def test_no_focus_type_recurs_before_all_are_shown(prompt_of, task, features):
    """Whatever the number of features."""
    text = replace(task.text, spurious={name: f"the {name}" for name in features})
    spurious = {name: Spurious("x", 1) for name in features}
    train = [replace(example, spurious=spurious) for example in task.splits["train"].examples]
    task = replace(task, text=text, splits={**task.splits, "train": replace(task.splits["train"], examples=train)})
    by_text = {e.slots["text"]: e for e in train}
    named: set[str] = set()
    for seed in range(3):
        counts: Counter[str] = Counter()
        for shot in shots_of(prompt_of(task, shots=12, seed=seed), task):
            queries = ask(text, "train", by_text[shot.text], ("train",), seed).queries
            counts[next(q.focus for q in queries if q.instruction == shot.instruction)] += 1
            named |= {name for name in features if f"the {name}" in shot.instruction}
        assert counts == dict.fromkeys(FOCUS_TYPES, 2)
    assert named == set(features)


def test_the_seed_chooses_the_shots_and_their_order(prompt_of, task):
    first, again, other = (shots_of(prompt_of(task, 8, seed), task) for seed in (0, 0, 1))
    assert first == again
    assert [s.text for s in first] != [s.text for s in other]


def test_every_text_has_shots_of_its_own_which_its_questions_share(prompt_of, base, task, config):
    drawn = [shots_of(prompt_of(task, 4, number=number), task) for number in range(10)]
    assert len({tuple(shot.text for shot in shots) for shots in drawn}) == 10
    subject, _ = METHOD.apply(base, task, config, 4)
    one, other = prepared(subject, task.splits["iid"].examples[0], "Look here.", "Look there.")
    differs = np.flatnonzero(one.prompt[: len(other.prompt)] != other.prompt[: len(one.prompt)])
    assert differs[0] > 0.7 * len(one.prompt)


def test_instructions_stand_where_the_config_puts_them(prompt_of, task):
    for block in prompt_of(task, 6, place="before").split("\n---\n")[1:-1]:
        *instruction, text, answer = block.split("\n")
        assert text.startswith("Review: ")
        assert answer.startswith("Answer: ")
        assert len(instruction) <= 1


def test_prompts_with_shots_have_no_limit_of_length(base, task, config):
    limited = replace(base, encoder=PromptEncoder(base.encoder.tokenizer, task.text, sequence_length=90))
    subject, _ = METHOD.apply(limited, task, config, 12)
    (prompt,) = prepared(subject, task.splits["iid"].examples[0], "")
    assert len(prompt) > 90


def test_more_shots_than_examples_are_reported(base, task, config):
    with pytest.raises(InputError, match="shots: 41, but the training split holds 40 examples; take fewer"):
        METHOD.apply(base, task, config, 41)
