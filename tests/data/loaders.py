"""Loaders of examples of any length, whose numbers stand in the rows."""

from collections import Counter

import numpy as np

from fit_jax.config import Config, FocusConfig, TrainConfig
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.loader import TrainLoader, Window
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.methods.candidates import CandidateSampler

TEXT = TaskText(
    name="demo", instruction="I", input_template="{text}", cue="A", core="the core", spurious={"keyword": "the keyword"}
)


class FakeEncoder:
    """A prompt is the example's number, as often as its text is long, then the length of the instruction."""

    def __init__(self):
        self.encoded = 0

    def encode(self, examples, instructions):
        self.encoded += len(examples)
        return [
            EncodedPrompt(
                np.array([int(e.uid)] * len(e.slots["text"]) + [10_000 + len(i)] * (2 if i else 1), np.int32),
                tuple(np.array([20_000 + c, 1], np.int32) for c in range(2)),
            )
            for e, i in zip(examples, instructions)
        ]


def focus(examples, branches, seed):
    return FocusSampler(examples, TEXT, FocusConfig(branches=branches), True, seed)


def candidates(examples, branches, seed):
    return CandidateSampler(examples, seed, prior=lambda e: np.array([0.0, -1.0]), group=lambda e: int(e.uid) % 3)


WINDOW = Window()


def make(
    count=300, longest=60, seed=0, branches=1, encoder=None, token_shards=1, sampler=focus, window=WINDOW, **train
):
    rng = np.random.default_rng(0)
    examples = [
        Example(str(i), {"text": "x" * int(n)}, ("no", "yes"), i % 2, {"keyword": Spurious("a", 0)})
        for i, n in enumerate(rng.integers(10, longest, count))
    ]
    config = Config(
        seed=seed,
        train=TrainConfig(**({"sequence_length": 128, "batch_size": 8} | train)),
    )
    return TrainLoader(sampler(examples, branches, seed), encoder or FakeEncoder(), config, token_shards, window)


def uids(batch):
    """How often each example stands in a batch: its number where a new item begins (position 0)."""
    rows = batch.rows
    return Counter(rows.tokens[(rows.positions == 0) & (rows.visible_until > 0)].tolist())


def arrays_of(batch):
    """All its arrays, those of its rows too."""
    return [*batch] if batch.rows is batch else [*batch.rows, *batch[1:]]
