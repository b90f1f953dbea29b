"""What a task holds, counted: by split, label, feature value and slice, with the rows left out."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fit_jax.data.balance import balances_of
from fit_jax.data.task import Task
from fit_jax.focus.example import Example

# A slice with more values than this is an identifier, not a category.
_MOST_VALUES = 40


def summarise(task: Task, rendered: int, render: Callable[[Example], str]) -> dict[str, Any]:
    """Counts of a task as plain JSON.

    Args:
        task: The task.
        rendered: Training examples to show as prompts.
        render: The prompt of an example, as a person reads it.
    """
    splits = {}
    for name, split in task.splits.items():
        labels: Counter[str] = Counter()
        slices: dict[str, Counter[str]] = {}
        for example in split.examples:
            fixed = example.candidates == split.examples[0].candidates
            labels[example.candidates[example.label] if fixed else f"answer {example.label}"] += 1
            for key, value in example.slices.items():
                slices.setdefault(key, Counter())[value] += 1
        splits[name] = {
            "examples": len(split.examples),
            "labels": _counts(labels),
            "rho": {f: {v: asdict(rho) for v, rho in values.items()} for f, values in split.rho.items()},
            "correlation": dict(split.correlation),
            "slices": {key: _counts(counts) for key, counts in slices.items() if len(counts) <= _MOST_VALUES},
        }
    train = task.splits["train"].examples
    return {
        "task": task.text.name,
        "features": dict(task.text.spurious),
        "splits": splits,
        "balance": balances_of(task),
        "kept": sum(len(split.examples) for split in task.splits.values()),
        "dropped": dict(task.dropped),
        "notes": list(task.notes),
        "prompts": [render(example) for example in train[:rendered]],
    }


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
