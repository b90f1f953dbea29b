"""Focus metrics from predictions: focus accuracy with intervals, worst group, flips, spread and calibration."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

import numpy as np
from jaxtyping import Float

from fit_jax.errors import InputError
from fit_jax.evaluation.matching import UNPARSEABLE
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.statistics import Mean, share_over_seeds
from fit_jax.focus.spec import FOCUS_TYPES
from fit_jax.html import FEW

Thing = TypeVar("Thing")
Key = TypeVar("Key", bound=Hashable)
# Types whose focus label is y_s; the others ask for y.
SPURIOUS_TYPES = ("focus(spurious)", "focus(spurious) & ignore(core)")


def focus_accuracy(predictions: Iterable[Prediction], method: str, seed: int, task: str) -> list[dict[str, Any]]:
    """Rows of `focus_accuracy.jsonl`: one per split, focus type, feature and paraphrase set (paper, section 4).

    `count` and `correct` are of answers, of which an example gives one in each paraphrase; the interval is over
    clusters of examples.
    """
    cells = group_by(predictions, lambda p: (p.split, p.feature, p.paraphrases, p.focus))
    rows = []
    for (split, feature, paraphrases, focus), cell in cells.items():
        correct = sum(p.correct for p in cell)
        low, high = share_of(cell).share_interval()
        rows.append(
            {
                "method": method,
                "seed": seed,
                "task": task,
                "split": split,
                "focus": focus,
                "feature": feature,
                "paraphrases": paraphrases,
                "count": len(cell),
                "correct": correct,
                "accuracy": correct / len(cell),
                "ci_low": low,
                "ci_high": high,
            }
        )
    return rows


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers over examples, and its 95 % interval over their clusters."""

    accuracy: float
    ci_low: float
    ci_high: float
    count: int


def pooled(predictions: Iterable[Prediction]) -> dict[tuple[str, str, str], Accuracy]:
    """Focus accuracy over all features, by (paraphrases, split, focus type).

    An example asked about several features or in several paraphrases counts once, with its mean over them.
    """
    cells = {}
    for key, cell in group_by(predictions, lambda p: (p.paraphrases, p.split, p.focus)).items():
        share = share_of(cell)
        cells[key] = Accuracy(share.value, *share.share_interval(), share.examples)
    return cells


def share_of(predictions: Iterable[Prediction]) -> Mean:
    """The focus accuracy of one seed's predictions, in which each example counts once."""
    examples = group_by(predictions, lambda p: p.uid).values()
    means = np.array([sum(p.correct for p in same) / len(same) for same in examples])
    return share_over_seeds(means[:, None], [same[0].cluster for same in examples])


def kind_of(focus: str) -> str:
    """`core` for the types whose focus label is y, `spurious` for those that ask for y_s."""
    return "spurious" if focus in SPURIOUS_TYPES else "core"


class WorstGroup(TypedDict):
    """The group with the lowest focus accuracy of a cell.

    Attributes:
        split: Of the cell, as the next three.
        focus: The focus type.
        feature: The spurious feature.
        paraphrases: Their set.
        value: The group's s.
        answer: Its y, or with multiple choice whether y = y_s.
        count: Its examples.
        accuracy: Its focus accuracy.
        ci_low: The 95 % interval begins here.
        ci_high: And ends here.
    """

    split: str
    focus: str
    feature: str
    paraphrases: str
    value: str
    answer: str
    count: int
    accuracy: float
    ci_low: float
    ci_high: float


class FlipRates(TypedDict):
    """How often answers change with the instruction, as `flip_rates` gives it.

    Attributes:
        split: Of the cell, as the next two.
        feature: The spurious feature.
        paraphrases: Their set.
        count: Examples with y != y_s.
        false_count: Examples with y = y_s.
        flip_rate: Share of the first whose answer goes from y to y_s; None where there is none.
        false_flip_rate: Share of the second whose answer changes; None where there is none.
    """

    split: str
    feature: str
    paraphrases: str
    count: int
    false_count: int
    flip_rate: float | None
    false_flip_rate: float | None


def worst_groups(predictions: Iterable[Prediction], few: int = FEW) -> list[WorstGroup]:
    """Per split, focus type, feature and paraphrases, the group with the lowest focus accuracy, its interval and size.

    Groups are those of `focus.example.group_of`: (s, y), and with multiple choice (s, whether y = y_s). Where some have
    `few` examples or more, it is the lowest of these: the lowest of many small groups is low by chance.
    """
    rows = []
    for (split, feature, paraphrases, focus), cell in group_by(
        predictions, lambda p: (p.split, p.feature, p.paraphrases, p.focus)
    ).items():
        groups = {key: share_of(group) for key, group in group_by(cell, lambda p: (p.value, p.group)).items()}
        (value, answer), worst = min(
            groups.items(), key=lambda g: (g[1].examples < few, g[1].value, g[1].examples, g[0])
        )
        low, high = worst.share_interval()
        rows.append(
            WorstGroup(
                split=split,
                focus=focus,
                feature=feature,
                paraphrases=paraphrases,
                value=value,
                answer=answer,
                count=worst.examples,
                accuracy=worst.value,
                ci_low=low,
                ci_high=high,
            )
        )
    return rows


def flip_rates(predictions: Iterable[Prediction]) -> list[FlipRates]:
    """How often the same x gets the other answer when only the focus instruction changes.

    From `focus(core) & ignore(spurious)` to `focus(spurious) & ignore(core)`, per split, feature and paraphrases:
    `flip_rate` is the share of x with y != y_s whose answer goes from y to y_s (1 is best); `false_flip_rate` the
    share of x with y = y_s whose answer changes at all (0 is best). A share over no x is None. An x asked in several
    paraphrases counts in each, the first of the one type with the first of the other. `count` and `false_count` are the
    numbers of x that the two are shares of.
    """
    core, spurious = "focus(core) & ignore(spurious)", "focus(spurious) & ignore(core)"
    rows = []
    for (split, feature, paraphrases), cell in group_by(
        predictions, lambda p: (p.split, p.feature, p.paraphrases)
    ).items():
        by_focus = group_by(cell, lambda p: (p.uid, p.focus))
        flips, false_flips, flipping, agreeing = [], [], set(), set()
        for (uid, focus), asked in by_focus.items():
            if focus != core:
                continue
            for a, b in zip(asked, by_focus.get((uid, spurious), ())):
                if a.label != b.label:
                    flips.append(a.correct and b.correct)
                    flipping.add(uid)
                else:
                    false_flips.append(a.prediction != b.prediction)
                    agreeing.add(uid)
        rows.append(
            FlipRates(
                split=split,
                feature=feature,
                paraphrases=paraphrases,
                count=len(flipping),
                false_count=len(agreeing),
                flip_rate=_mean(flips),
                false_flip_rate=_mean(false_flips),
            )
        )
    return rows


def spreads(predictions: Iterable[Prediction]) -> dict[tuple[str, bool, str], float]:
    """Largest minus smallest focus accuracy over splits, by (paraphrases, whether shifted splits, focus type).

    Over the splits of a chosen rho: what differs between these and the natural ones is more than the correlation.
    """
    shaped = (cell for cell in pooled(predictions).items() if not is_natural(cell[0][1]))
    cells = group_by(shaped, lambda c: (c[0][0], is_shifted(c[0][1]), c[0][2]))
    return {key: max(c.accuracy for _, c in cell) - min(c.accuracy for _, c in cell) for key, cell in cells.items()}


def is_shifted(split: str) -> bool:
    """Whether a split holds feature values never seen in training."""
    return split.startswith("shifted")


def is_natural(split: str) -> bool:
    """Whether a split keeps the data's natural distribution, in which no rho was chosen."""
    return split.removeprefix("shifted_") == "natural"


def probabilities(log_probs: Sequence[float] | np.ndarray) -> Float[np.ndarray, " candidates"]:
    """The candidates' probabilities given that the answer is one of them, from their log-probabilities."""
    scores = np.asarray(log_probs, np.float64)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def calibration_error(predictions: Sequence[Prediction], bins: int = 15) -> float:
    """Expected calibration error of the most probable candidate, in equal-width bins (Guo et al., 2017)."""
    confidence = np.array([probabilities(p.log_probs).max() for p in predictions])
    correct = np.array([p.likeliest == p.label for p in predictions], np.float64)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs((correct - confidence)[bin_of == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(predictions))


def unparseable_rates(predictions: Iterable[Prediction]) -> dict[tuple[str, str], float]:
    """Share of written answers that mean no candidate, by (paraphrases, split); {} where nothing was written."""
    written = (p for p in predictions if p.meant is not None)
    cells = group_by(written, lambda p: (p.paraphrases, p.split))
    return {key: float(np.mean([p.meant == UNPARSEABLE for p in cell])) for key, cell in cells.items()}


def check_finite(predictions: Iterable[Prediction], searched: bool = False) -> None:
    """Raises InputError where a score is NaN or infinite: such a model has no answers.

    Where answers were `searched` for, all but the best may be -inf: those that were not reached.
    """
    for p in predictions:
        if not np.all(np.isfinite(np.max(p.log_probs) if searched else p.log_probs)):
            raise InputError(
                f"the model's scores are not finite (split {p.split}, example {p.uid}): its weights are broken, most "
                "often by a diverged training; choose an earlier checkpoint or lower optimizer.learning_rate"
            )


def main_set(asked: Iterable[str]) -> str:
    """The paraphrase set that figures and short tables show: held-out ones where they were asked."""
    present = set(asked)
    return next(name for name in ("heldout", "train", "far") if name in present)


def ordered(types: Iterable[str]) -> list[str]:
    """Focus types in the paper's order."""
    present = set(types)
    return [t for t in FOCUS_TYPES if t in present]


def group_by(things: Iterable[Thing], key: Callable[[Thing], Key]) -> dict[Key, list[Thing]]:
    """The things of each key, both in the order given."""
    groups: dict[Key, list[Thing]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups


def _mean(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None
