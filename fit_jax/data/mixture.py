"""Several tasks as one: their examples for training in the shares that are asked for, their test splits side by side.

An epoch of a mixture shows every example at least once, and each task in its share to within one example: the task that
is long for its weight once through, the others as often as their weights ask, the first of their examples once more
where that does not come out even. The examples stand in the order of their place in their task, so that the beginning
of the split is a fair sample of the whole; who trains on it draws an order of its own for every epoch, in which tasks
stand side by side in the packed rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from fit_jax.config import MIXTURE
from fit_jax.data.lazy_examples import LazyExamples
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, TaskText

# A task's name also names folders.
NAME = re.compile(r"\w[\w.-]{0,60}")
# Examples of an epoch above which weights are a mistake.
_MOST = 1 << 24


def mix(parts: Mapping[str, Task], weights: Mapping[str, float]) -> Task:
    """The mixture of some tasks.

    Args:
        parts: The tasks by name.
        weights: The share of each in the training examples, relative to the others; those of 0 are held out: nothing of
            them stands in the mixture's own splits, for training and for validation.

    Raises:
        InputError: A task to train on has no examples, or the shares ask for a far too long epoch.
    """
    parts = {name: _tagged(part, name) for name, part in parts.items()}
    trained = [name for name in parts if weights[name]]
    sizes = {
        split: np.array([len(parts[name].splits[split].examples) for name in trained])
        for split in ("train", "validation")
    }
    for name, size in zip(trained, sizes["train"]):
        if not size:
            raise InputError(f"task {name}: has no training examples; raise its train_examples, or give it weight 0")
    counts = epoch_counts(sizes["train"], [weights[name] for name in trained])
    orders = {"train": _in_step(counts), "validation": _in_turns(sizes["validation"])}
    splits = {
        name: Split(name, _drawn([parts[part].splits[name].examples for part in trained], order), {})
        for name, order in orders.items()
    }
    shares = [f"{name} {n:,} of {n_has:,}" for name, n, n_has in zip(trained, counts, sizes["train"])]
    held_out = [name for name in parts if not weights[name]]
    notes = [f"an epoch trains on {', '.join(shares)} examples"]
    if held_out:
        notes.append(f"never trained on: {', '.join(held_out)}")
    notes += [f"{name}: {note}" for name, part in parts.items() for note in part.notes]
    texts = {name: part.text for name, part in parts.items()}
    text = TaskText(name=MIXTURE, instruction="", input_template="", cue="", core="", spurious={}, parts=texts)
    return Task(text=text, splits=splits, notes=tuple(notes), parts=parts, weights=dict(weights))


def epoch_counts(sizes: Sequence[int] | np.ndarray, weights: Sequence[float]) -> Int64[np.ndarray, " parts"]:
    """Examples that an epoch takes of each part: in proportion to its weight, and at least all that it has.

    Raises:
        InputError: That is a far too long epoch.
    """
    with np.errstate(all="ignore"):  # of weights beyond all measure the counts are no numbers
        shares = np.array(weights) / np.sum(weights)
        counts = np.maximum(np.rint(shares * np.max(np.asarray(sizes) / shares)), sizes)
    if not counts.sum() <= _MOST:
        raise InputError(
            f"task.parts: an epoch that shows every example in these shares has more than {_MOST:,} examples; bring "
            "the weights nearer to each other, or lower the train_examples of the largest task"
        )
    return counts.astype(np.int64)


def _in_step(counts: np.ndarray) -> np.ndarray:
    """Pairs (part, number) of so many numbers of each part, every part evenly spread."""
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return _pairs(counts)[np.argsort(places, kind="stable")]


def _in_turns(counts: np.ndarray) -> np.ndarray:
    """Pairs (part, number): the first of each part, the second of each, and so on."""
    pairs = _pairs(counts)
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


def _pairs(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.stack([np.full(n, part), np.arange(n)], axis=1) for part, n in enumerate(counts)])


def _drawn(parts: Sequence[Sequence[Example]], order: np.ndarray) -> LazyExamples:
    """The examples of these pairs of a part and a number, which begins again after the last one."""

    def make(numbers: Sequence[int]) -> list[Example]:
        pairs = order[np.asarray(numbers, np.int64)].tolist()
        return [parts[part][number % len(parts[part])] for part, number in pairs]

    return LazyExamples(len(order), make)


def _tagged(task: Task, name: str) -> Task:
    """The task with examples that know its name."""

    def tag(examples: Sequence[Example]) -> LazyExamples:
        return LazyExamples(len(examples), lambda numbers: [replace(examples[n], part=name) for n in numbers])

    splits = {split: replace(found, examples=tag(found.examples)) for split, found in task.splits.items()}
    return replace(task, splits=splits)
