"""What an experiment shows: means, deviations and intervals over seeds and clusters, paired tests between methods."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from fit_jax.evaluation.matching import UNPARSEABLE
from fit_jax.evaluation.metrics import (
    calibration_error,
    flip_rates,
    group_by,
    is_shifted,
    kind_of,
    spreads,
    worst_groups,
)
from fit_jax.evaluation.paraphrase_spread import Spread, paraphrase_spreads
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import repeated_splits, without_repeats
from fit_jax.evaluation.statistics import Mean, holm, mean_over_seeds, share_over_seeds, unpaired
from fit_jax.evaluation.verdict import Following, chance, telling
from fit_jax.html import FEW

KINDS = ("core", "spurious")
# An example by uid and cluster: where texts are made by seed, the same uid is another text.
_Asked = tuple[str, str]


class MethodAnswer(NamedTuple):
    """A prediction of one method and seed."""

    method: str
    seed: int
    prediction: Prediction


class Estimate(NamedTuple):
    """A focus accuracy over seeds.

    Attributes:
        mean: Mean over seeds.
        std: Standard deviation over seeds; None with one seed.
        ci_low: Lower end of the 95 % interval over seeds and clusters of examples; with one seed over clusters alone.
        ci_high: Upper end.
        seeds: Number of seeds.
        examples: Number of distinct examples, whatever their seeds.
    """

    mean: float
    std: float | None
    ci_low: float
    ci_high: float
    seeds: int
    examples: int


class Comparison(NamedTuple):
    """The reference method minus another, on the same examples; p adjusted by Holm over one set of paraphrases.

    With one seed there is no p: the interval is over clusters of examples alone.
    """

    method: str
    paraphrases: str
    kind: str
    split: str
    difference: float
    ci_low: float
    ci_high: float
    p: float | None
    p_holm: float | None


def by_type(answers: Iterable[MethodAnswer]) -> dict[tuple[str, str, str, str], Estimate]:
    """Focus accuracy by (method, paraphrases, split, focus type), over all features."""
    cells = group_by(answers, lambda a: (a.method, a.prediction.paraphrases, a.prediction.split, a.prediction.focus))
    return {key: _estimate(cell) for key, cell in cells.items()}


def by_kind(answers: Iterable[MethodAnswer]) -> dict[tuple[str, str, str, str], Estimate]:
    """Mean focus accuracy of core and spurious types, by (method, paraphrases, split, kind)."""
    cells = group_by(answers, lambda a: (a.method, a.prediction.paraphrases, a.prediction.split, _kind(a)))
    return {key: _estimate(cell) for key, cell in cells.items()}


def by_paraphrase(answers: Iterable[MethodAnswer]) -> dict[tuple[str, str, str], Spread]:
    """Spread of the accuracy over paraphrases, each the mean over seeds, by (method, paraphrases, focus type)."""
    # An example of another seed is another one: seeds ask it in paraphrases of their own.
    apart = [a._replace(prediction=replace(a.prediction, uid=f"{a.seed}/{a.prediction.uid}")) for a in answers]
    answer_of = {id(a.prediction): a for a in apart}

    def share(predictions: Iterable[Prediction]) -> Mean:
        return _share(_asked([answer_of[id(p)] for p in predictions]))

    found = {}
    for method, cell in group_by(apart, lambda a: a.method).items():
        spreads_of = paraphrase_spreads([a.prediction for a in cell], share)
        found.update({(method, *key): spread for key, spread in spreads_of.items()})
    return found


def compare(answers: Sequence[MethodAnswer], reference: str) -> list[Comparison]:
    """The reference method against each other one, by paraphrases, split and kind of focus type.

    An example's difference in a seed is the mean over its types, features and paraphrases, and the estimate is the mean
    over the seeds that both methods share, each the mean over its examples. Methods that share no seed are compared
    unpaired. Splits that repeat another are left out.
    """
    cells = group_by(_evidence(answers), lambda a: (a.prediction.paraphrases, a.prediction.split, _kind(a)))
    found: list[Comparison] = []
    for (paraphrases, split, kind), cell in cells.items():
        methods = group_by(cell, lambda a: a.method)
        for method in methods:
            if method != reference and reference in methods:
                mean = _difference(methods[reference], methods[method])
                low, high = mean.interval()
                found.append(Comparison(method, paraphrases, kind, split, mean.value, low, high, mean.p, mean.p))
    adjusted = []
    for family in group_by(found, lambda c: c.paraphrases).values():
        tested = [c for c in family if c.p is not None]
        corrected = dict(zip(map(id, tested), holm([c.p for c in tested if c.p is not None])))
        adjusted += [c._replace(p_holm=corrected.get(id(c))) for c in family]
    return adjusted


def followings(answers: Sequence[MethodAnswer]) -> dict[str, Following]:
    """How far each method follows the instruction, over its seeds; methods that were not asked for y_s are left out."""
    kept = {id(p) for p in telling([a.prediction for a in answers])}
    found = {}
    for method, cell in group_by((a for a in answers if id(a.prediction) in kept), lambda a: a.method).items():
        kinds = group_by(cell, _kind)
        core, spurious = (kinds.get(kind, []) for kind in KINDS)
        if both := _joined(core, spurious, lambda y, y_s: (y + y_s) / 2):
            by_chance = chance([a.prediction for a in cell])
            found[method] = Following(_share(_asked(core)), _share(_asked(spurious)), _share(both), by_chance)
    return found


def measures(answers: Iterable[MethodAnswer]) -> dict[tuple[str, str, str], tuple[float, float | None]]:
    """Further measures as (mean, deviation over seeds), by (method, paraphrases, name); none over nothing."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for (method, paraphrases, _), cell in group_by(
        answers, lambda a: (a.method, a.prediction.paraphrases, a.seed)
    ).items():
        for name, value in _measures([a.prediction for a in cell]).items():
            values.setdefault((method, paraphrases, name), []).append(value)
    return {key: (float(np.mean(v)), _deviation(v)) for key, v in values.items()}


def _measures(asked: Sequence[Prediction]) -> dict[str, float]:
    predictions, found = without_repeats(asked), {}
    for kind in KINDS:
        for shifted in (False, True):
            gaps = [
                s for (_, far, focus), s in spreads(predictions).items() if far == shifted and kind_of(focus) == kind
            ]
            if gaps:
                found[f"largest spread over {'shifted ' if shifted else ''}splits, {kind} types"] = max(gaps)
    standard = [p for p in predictions if not is_shifted(p.split)]
    for kind in KINDS:
        enough = (r for r in worst_groups(standard) if r["count"] >= FEW)
        groups = [r["accuracy"] for r in enough if kind_of(r["focus"]) == kind]
        if groups:
            found[f"worst group, {kind} types"] = min(groups)
    for name in ("flip_rate", "false_flip_rate"):
        rates = [rate for r in flip_rates(standard) if (rate := r[name]) is not None]
        if rates:
            found[name.replace("_", " ")] = float(np.mean(rates))
    found["calibration error"] = calibration_error(predictions)
    if any(p.meant is not None for p in predictions):
        found["unparseable answers"] = float(np.mean([p.meant == UNPARSEABLE for p in predictions]))
    return found


def _estimate(cell: Sequence[MethodAnswer]) -> Estimate:
    asked = _asked(cell)
    mean = _share(asked)
    deviation = _deviation(np.nanmean(np.array(list(asked.values())), axis=0).tolist())
    low, high = mean.share_interval()
    return Estimate(mean.value, deviation, low, high, mean.seeds, mean.examples)


def _difference(ours: Sequence[MethodAnswer], theirs: Sequence[MethodAnswer]) -> Mean:
    differences = _joined(ours, theirs, np.subtract)
    return _mean(differences) if differences else unpaired(_mean(_asked(ours)), _mean(_asked(theirs)))


def _joined(
    ours: Sequence[MethodAnswer],
    theirs: Sequence[MethodAnswer],
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> dict[_Asked, np.ndarray]:
    """What both were asked, by example and seed, joined; without seeds and examples that only one of them was asked."""
    seeds = sorted({a.seed for a in ours} & {a.seed for a in theirs})
    first, second = (_asked(cell, seeds) for cell in (ours, theirs))
    both = sorted(first.keys() & second.keys())
    values = np.array([join(first[example], second[example]) for example in both]).reshape(len(both), len(seeds))
    shared = ~np.isnan(values)
    examples, asked = np.flatnonzero(shared.any(axis=1)), np.flatnonzero(shared.any(axis=0))
    return {both[example]: values[example, asked] for example in examples}


def _asked(cell: Sequence[MethodAnswer], seeds: Sequence[int] | None = None) -> dict[_Asked, np.ndarray]:
    """Share of right answers of each example by seed (by default of all seeds); NaN where a seed did not ask it."""
    column = {seed: at for at, seed in enumerate(sorted({a.seed for a in cell}) if seeds is None else seeds)}
    place: dict[_Asked, int] = {}
    places, right = [], []  # of each answer: its example and seed as one number, and whether it is right
    for answer in cell:
        if (at := column.get(answer.seed)) is not None:
            example = (answer.prediction.uid, answer.prediction.cluster)
            places.append(place.setdefault(example, len(place)) * len(column) + at)
            right.append(answer.prediction.correct)
    size = len(place) * len(column)
    asked = np.bincount(np.array(places, int), minlength=size)
    correct = np.bincount(np.array(places, int), np.array(right, float), minlength=size)
    shares = np.where(asked > 0, correct, np.nan) / np.maximum(asked, 1)
    return dict(zip(place, shares.reshape(len(place), len(column))))


def _mean(by_example: Mapping[_Asked, np.ndarray]) -> Mean:
    return mean_over_seeds(np.array(list(by_example.values())), [cluster for _, cluster in by_example])


def _share(by_example: Mapping[_Asked, np.ndarray]) -> Mean:
    return share_over_seeds(np.array(list(by_example.values())), [cluster for _, cluster in by_example])


def _evidence(answers: Iterable[MethodAnswer]) -> list[MethodAnswer]:
    """The answers on all splits but those that repeat another."""
    answers = list(answers)
    repeated = repeated_splits(a.prediction for a in answers)
    return [a for a in answers if a.prediction.split not in repeated]


def _kind(answer: MethodAnswer) -> str:
    return kind_of(answer.prediction.focus)


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
