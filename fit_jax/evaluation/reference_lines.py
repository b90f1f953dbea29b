"""What accuracies are to be read against: answers that read nothing, and splits that say the same twice."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from fit_jax.evaluation.matching import unknown_answer
from fit_jax.evaluation.metrics import group_by, kind_of
from fit_jax.evaluation.queries import Prediction

# Shares of y = y_s that differ by less are one, up to the rounding of row counts; or by less than so many standard
# deviations, where some examples of each split were asked and not all.
_SAME = 0.02
_DEVIATIONS = 3


def reference_lines(predictions: Iterable[Prediction]) -> dict[str, dict[str, float]]:
    """What answers without reading the question would reach, by what is answered and by split.

    A line speaks of the focus types that it names, or of all (`speaks_of`). The last two are of BBQ alone, where one
    answer says that it cannot be known: the last is what a model reaches that tells ambiguous contexts and knows
    nothing else.
    """
    lines: dict[str, dict[str, float]] = defaultdict(dict)
    for split, cell in group_by(predictions, lambda p: p.split).items():
        core = [p for p in cell if kind_of(p.focus) == "core"]
        spurious = [p for p in cell if kind_of(p.focus) == "spurious"]
        of_bbq = [p for p in core if unknown_answer(p.slices) is not None]
        coins = [1.0 if p.slices["condition"] == "ambig" else 0.5 for p in of_bbq]
        found = {
            "an answer at random": [1 / len(p.log_probs) for p in cell],
            "always the commonest y (core types)": _commonest([p.label for p in core]),
            "always the commonest y_s (spurious types)": _commonest([p.label for p in spurious]),
            "always y_s (core types)": [p.core_label == p.spurious_label for p in core if p.feature],
            "always y (spurious types)": [p.core_label == p.spurious_label for p in spurious],
            "always unknown (core types)": [p.core_label == unknown_answer(p.slices) for p in of_bbq],
            "unknown if ambiguous, else a coin (core types)": coins,
        }
        for line, right in found.items():
            if right:
                lines[line][split] = float(np.mean(right))
    return dict(lines)


def speaks_of(line: str, kind: str) -> bool:
    """Whether a reference line speaks of the `core` or the `spurious` focus types."""
    return f"({kind} types)" in line or "types)" not in line


def repeated_splits(predictions: Iterable[Prediction]) -> dict[str, str]:
    """The splits `flipped` that are no other distribution than `low`, each with the `low` split that it repeats.

    With two answers, a value that predicts the other label is one that rarely agrees with its own: where 1 - rho of
    `flipped` is rho of `low`, both have the same P(y = y_s), and one is no further evidence beside the other.
    """
    cells = group_by((p for p in predictions if p.feature), lambda p: p.split)
    agreements = {
        split: [p.core_label == p.spurious_label for p in {(p.uid, p.cluster, p.feature): p for p in cell}.values()]
        for split, cell in cells.items()
        if all(len(p.log_probs) == 2 for p in cell)
    }
    pairs = {name: name.replace("flipped", "low") for name in agreements if name.endswith("flipped")}
    return {
        name: low
        for name, low in pairs.items()
        if low in agreements and _are_one(np.array(agreements[name]), np.array(agreements[low]))
    }


def without_repeats(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions on all splits but those that repeat another: what averages and tests are taken over."""
    repeated = repeated_splits(predictions)
    return [p for p in predictions if p.split not in repeated]


def split_titles(names: Iterable[str], predictions: Iterable[Prediction]) -> dict[str, str]:
    """What a table's columns call the splits: a repeated one says which."""
    repeated = repeated_splits(predictions)
    return {name: f"{name} (as {repeated[name]})" if name in repeated else name for name in names}


def _are_one(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the shares of two splits differ by no more than what some of their examples leave to chance."""
    share = np.concatenate([first, second]).mean()
    deviation = np.sqrt(share * (1 - share) * (1 / len(first) + 1 / len(second)))
    return bool(abs(first.mean() - second.mean()) < max(_SAME, _DEVIATIONS * deviation))


def _commonest(labels: Sequence[int]) -> list[bool]:
    """Which of the labels are the commonest one."""
    commonest = max(set(labels), key=labels.count, default=None)
    return [label == commonest for label in labels]
