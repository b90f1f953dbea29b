"""Earlier turns in training: how many, which, that their answers are right, and that the batches of a run hold them."""

from dataclasses import replace

import numpy as np
import pytest

from fit_jax.config import Config, FocusConfig, TrainConfig
from fit_jax.data.decoy_sampling import TrainingDecoys
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.loader import TrainLoader
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.data.turn_sampling import TrainingTurns
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.focus.spec import FOCUS_TYPES, focus_label, spec_for
from fit_jax.methods import UNINSTRUCTED, training_method

TEXT = TaskText(
    name="demo", instruction="I", input_template="{text}", cue="A", core="the core", spurious={"keyword": "the keyword"}
)
EXAMPLES = [Example("e", {"text": "a b c d"}, ("no", "yes"), 0, {"keyword": Spurious("a", 1)})] * 400
ANSWERS = {
    instruction(TEXT, spec_for(focus, "keyword"), p): EXAMPLES[0].candidates[
        focus_label(EXAMPLES[0], spec_for(focus, "keyword"))
    ]
    for focus in FOCUS_TYPES
    for p in paraphrases_of("demo", focus, "train")
}


def test_a_share_of_the_examples_has_one_or_two_that_are_answered_as_they_ask():
    turns = TrainingTurns(TEXT, 0.5, 0)
    shown = [turns.shown(0, i, e) for i, e in enumerate(EXAMPLES)]
    counts = np.bincount([len(e.earlier) for e in shown], minlength=3)
    assert 160 < counts[0] < 240
    assert len(counts) == 3
    assert counts[1:].min() > 60
    assert all(replace(e, earlier=()) == EXAMPLES[0] for e in shown)
    said = [turn for e in shown for turn in e.earlier]
    assert all(turn.answer == ANSWERS[turn.instruction] for turn in said)
    assert {turn.answer for turn in said} == {"no", "yes"}
    assert any(e.earlier[0].instruction == "" for e in shown if e.earlier)
    assert all(turn.instruction for e in shown for turn in e.earlier[1:])


@pytest.mark.parametrize("kind", [TrainingTurns, TrainingDecoys])
def test_they_are_in_the_paraphrases_that_training_shows(kind):
    def words(example):
        return [t.instruction for t in example.earlier] or [example.slots["text"].replace("a b c d", "").strip(' "')]

    few = kind(TEXT, 1.0, 0, 1)
    said = {text for i, e in enumerate(EXAMPLES) for text in words(few.shown(0, i, e)) if "a b" not in text and text}
    shown = {instruction(TEXT, spec_for(f, "keyword"), paraphrases_of("demo", f, "train")[0]) for f in FOCUS_TYPES[1:]}
    assert said == shown


def test_it_is_a_function_of_seed_epoch_and_example():
    def earlier(seed, epoch):
        turns = TrainingTurns(TEXT, 0.5, seed)
        return [turns.shown(epoch, i, EXAMPLES[i]).earlier for i in reversed(range(50))]

    assert earlier(0, 3) == earlier(0, 3)
    assert earlier(0, 3) != earlier(0, 4)
    assert earlier(0, 3) != earlier(1, 3)


class Recording:
    """An encoder that keeps the examples it was given."""

    text = TEXT

    def encode(self, examples, instructions):
        self.examples = list(examples)
        ids = np.array([2, 3], np.int32)
        return [EncodedPrompt(ids, (ids, ids)) for _ in examples]


@pytest.mark.parametrize(("share", "turned"), [(0.0, 0), (1.0, 400)])
def test_batches_hold_them_beside_decoys(share, turned):
    focus = FocusConfig(branches=3, turn_share=share, decoy_share=1.0)
    config = Config(focus=focus, train=TrainConfig(sequence_length=64, batch_size=4, targets_per_row=12))
    encoder = Recording()
    TrainLoader(FocusSampler(EXAMPLES, TEXT, focus, True, 0), encoder, config)
    assert len(encoder.examples) == 1200
    assert sum(bool(e.earlier) for e in encoder.examples) == 3 * turned
    assert all(e.slots["text"] != "a b c d" for e in encoder.examples)


@pytest.mark.parametrize("method", UNINSTRUCTED)
@pytest.mark.parametrize("field", ["turn_share", "combinations"])
def test_what_needs_instructions_is_refused_of_methods_that_show_none(method, field):
    examples = [replace(e, uid=f"e{n}", label=n // 2 % 2) for n, e in enumerate(EXAMPLES)]
    task = Task(text=replace(TEXT, biased=("text",)), splits={"train": Split("train", examples, {})})
    for name, focus in (("fit", FocusConfig(**{field: 0.5})), (method, FocusConfig())):
        training_method(task, Config(focus=focus, train=TrainConfig(method=name)))
    with pytest.raises(InputError, match=rf"focus\.{field}: 0\.5, but {method} trains without focus instructions"):
        training_method(task, Config(focus=FocusConfig(**{field: 0.5}), train=TrainConfig(method=method)))


def test_the_share_is_one():
    with pytest.raises(InputError, match=r"focus\.turn_share: 1\.5 is no share from 0 to 1"):
        FocusConfig(turn_share=1.5).check()
