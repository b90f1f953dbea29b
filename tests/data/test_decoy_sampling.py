"""Decoys in training: how many, which sentences, where; and that the batches of a run hold them."""

import numpy as np
import pytest

from fit_jax.config import Config, FocusConfig, TrainConfig
from fit_jax.data.decoy_sampling import TrainingDecoys
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.loader import TrainLoader
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.focus.spec import FOCUS_TYPES, spec_for

TEXT = TaskText(
    name="demo", instruction="I", input_template="{text}", cue="A", core="the core", spurious={"keyword": "the keyword"}
)
EXAMPLES = [Example("e", {"id": "x", "text": "a b c d"}, ("no", "yes"), 0, {"keyword": Spurious("a", 1)})] * 400


def words(paraphrases):
    return {
        instruction(TEXT, spec_for(focus, "keyword"), p)
        for focus in FOCUS_TYPES
        for p in paraphrases_of("demo", focus, paraphrases)
        if p
    }


def decoy_of(example):
    """The decoy's words, its place and whether it is quoted; None where there is none."""
    text = example.slots["text"]
    for place, (before, after) in {
        "start": ("", " a b c d"),
        "middle": ("a b ", " c d"),
        "end": ("a b c d ", ""),
    }.items():
        if text.startswith(before) and text.endswith(after) and text != "a b c d":
            decoy = text.removeprefix(before).removesuffix(after)
            return decoy.strip('"'), place, decoy.startswith('"')
    return None


def test_a_share_of_the_texts_holds_a_training_paraphrase_anywhere():
    decoys = TrainingDecoys(TEXT, 0.5, 0)
    shown = [decoys.shown(0, i, e) for i, e in enumerate(EXAMPLES)]
    found = [d for d in map(decoy_of, shown) if d is not None]
    assert 160 < len(found) < 240
    assert {d[0] for d in found} <= words("train") - words("heldout")
    assert {d[1] for d in found} == {"start", "middle", "end"}
    assert 0.1 < np.mean([d[2] for d in found]) < 0.4
    assert all((e.label, e.spurious, e.uid, e.slots["id"]) == (0, {"keyword": ("a", 1)}, e.uid, "x") for e in shown)


def test_it_is_a_function_of_seed_epoch_and_example():
    def slots(seed, epoch):
        decoys = TrainingDecoys(TEXT, 0.5, seed)
        return [decoys.shown(epoch, i, EXAMPLES[i]).slots for i in reversed(range(50))]

    assert slots(0, 3) == slots(0, 3)
    assert slots(0, 3) != slots(0, 4)
    assert slots(0, 3) != slots(1, 3)


class Recording:
    """An encoder that keeps the texts it was given."""

    text = TEXT

    def encode(self, examples, instructions):
        self.texts = [e.slots["text"] for e in examples]
        ids = np.array([2, 3], np.int32)
        return [EncodedPrompt(ids, (ids, ids)) for _ in examples]


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (1.0, 400)])
def test_batches_hold_them(share, held):
    focus = FocusConfig(branches=3, decoy_share=share)
    config = Config(focus=focus, train=TrainConfig(sequence_length=64, batch_size=4, targets_per_row=12))
    encoder = Recording()
    TrainLoader(FocusSampler(EXAMPLES, TEXT, focus, True, 0), encoder, config)
    assert len(encoder.texts) == 1200
    assert sum(text != "a b c d" for text in encoder.texts) == 3 * held
    assert all(len(set(encoder.texts[i : i + 3])) == 1 for i in range(0, 1200, 3))  # branches share their text


def test_the_share_is_one():
    with pytest.raises(InputError, match=r"focus\.decoy_share: 1\.5 is no share from 0 to 1"):
        FocusConfig(decoy_share=1.5).check()
