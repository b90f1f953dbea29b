"""What an experiment shows: means and deviations over seeds, intervals over examples, paired tests between methods."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fit_jax.data.keyed_generator import generator
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
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.statistics import bootstrap_interval, holm, mean_over_seeds, shares, sign_flip_p

KINDS = ("core", "spurious")


class Answer(NamedTuple):
    """A prediction of one method and seed."""

    method: str
    seed: int
    prediction: Prediction


class Estimate(NamedTuple):
    """A focus accuracy over seeds.

    Attributes:
        mean: Mean over seeds.
        std: Standard deviation over seeds; None with one seed.
        ci_low: Lower end of the 95 % bootstrap interval over examples.
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
    """The reference method minus another, on the same examples; p adjusted by Holm over one set of paraphrases."""

    method: str
    paraphrases: str
    kind: str
    split: str
    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float


def by_type(answers: Iterable[Answer]) -> dict[tuple[str, str, str, str], Estimate]:
    """Focus accuracy by (method, paraphrases, split, focus type), over all features."""
    cells = group_by(answers, lambda a: (a.method, a.prediction.paraphrases, a.prediction.split, a.prediction.focus))
    return {key: _estimate(cell, key) for key, cell in cells.items()}


def by_kind(answers: Iterable[Answer]) -> dict[tuple[str, str, str, str], Estimate]:
    """Mean focus accuracy of core and spurious types, by (method, paraphrases, split, kind)."""
    cells = group_by(
        answers, lambda a: (a.method, a.prediction.paraphrases, a.prediction.split, kind_of(a.prediction.focus))
    )
    return {key: _estimate(cell, key) for key, cell in cells.items()}


def compare(answers: Sequence[Answer], reference: str) -> list[Comparison]:
    """The reference method against each other one, by paraphrases, split and kind of focus type.

    An example's difference in a seed is the mean over its types and features; the estimate is the mean over the seeds
    that both methods share, each the mean over its examples, and the tests are over examples.
    """
    cells = group_by(answers, lambda a: (a.prediction.paraphrases, a.prediction.split, kind_of(a.prediction.focus)))
    found: list[Comparison] = []
    for (paraphrases, split, kind), cell in cells.items():
        methods = group_by(cell, lambda a: a.method)
        for method in methods:
            if method == reference or reference not in methods:
                continue
            seeds = sorted({a.seed for a in methods[method]} & {a.seed for a in methods[reference]})
            if not seeds:
                continue
            ours, theirs = (_by_example(methods[m], seeds) for m in (reference, method))
            both = sorted(ours.keys() & theirs.keys())
            differences = np.array([ours[uid] - theirs[uid] for uid in both]).reshape(-1, len(seeds))
            # Seeds and examples that one of the two methods alone was asked.
            shared = ~np.isnan(differences)
            differences = differences[shared.any(axis=1)][:, shared.any(axis=0)]
            if not differences.size:
                continue
            rng = generator(0, "compare", reference, method, paraphrases, split, kind)
            low, high = bootstrap_interval(differences, rng)
            p = sign_flip_p(shares(differences), rng)
            difference = mean_over_seeds(differences)
            found.append(Comparison(method, paraphrases, kind, split, difference, low, high, p, p))
    adjusted = []
    for family in group_by(found, lambda c: c.paraphrases).values():
        adjusted += [c._replace(p_holm=p) for c, p in zip(family, holm([c.p for c in family]))]
    return adjusted


def measures(answers: Iterable[Answer]) -> dict[tuple[str, str, str], tuple[float, float | None]]:
    """Further measures as (mean, deviation over seeds), by (method, paraphrases, name); none over nothing."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for (method, paraphrases, _), cell in group_by(
        answers, lambda a: (a.method, a.prediction.paraphrases, a.seed)
    ).items():
        for name, value in _measures([a.prediction for a in cell]).items():
            values.setdefault((method, paraphrases, name), []).append(value)
    return {key: (float(np.mean(v)), _deviation(v)) for key, v in values.items()}


def _measures(predictions: Sequence[Prediction]) -> dict[str, float]:
    found = {}
    for kind in KINDS:
        for shifted in (False, True):
            gaps = [
                s for (_, far, focus), s in spreads(predictions).items() if far == shifted and kind_of(focus) == kind
            ]
            if gaps:
                found[f"largest spread over {'shifted ' if shifted else ''}splits, {kind} types"] = max(gaps)
    standard = [p for p in predictions if not is_shifted(p.split)]
    for kind in KINDS:
        groups = [r["accuracy"] for r in worst_groups(standard) if kind_of(r["focus"]) == kind]
        if groups:
            found[f"worst group, {kind} types"] = min(groups)
    for name in ("flip_rate", "false_flip_rate"):
        rates = [r[name] for r in flip_rates(standard) if r[name] is not None]
        if rates:
            found[name.replace("_", " ")] = float(np.mean(rates))
    found["calibration error"] = calibration_error(predictions)
    if any(p.meant is not None for p in predictions):
        found["unparseable answers"] = float(np.mean([p.meant == UNPARSEABLE for p in predictions]))
    return found


def _estimate(cell: Sequence[Answer], key: tuple[str, ...]) -> Estimate:
    seeds = sorted({a.seed for a in cell})
    values = np.array(list(_by_example(cell, seeds).values()))
    low, high = bootstrap_interval(values, generator(0, "bootstrap", *key))
    deviation = _deviation(np.nanmean(values, axis=0).tolist())
    return Estimate(mean_over_seeds(values), deviation, low, high, len(seeds), len(values))


def _by_example(cell: Iterable[Answer], seeds: Sequence[int]) -> Mapping[str, np.ndarray]:
    """Share of right answers of each example by seed; NaN where a seed did not ask it."""
    column = {seed: at for at, seed in enumerate(seeds)}
    counts: dict[str, np.ndarray] = {}
    for answer in cell:
        if answer.seed in column:
            of_seed = counts.setdefault(answer.prediction.uid, np.zeros((2, len(seeds))))[:, column[answer.seed]]
            of_seed += (answer.prediction.correct, 1)
    return {uid: np.where(asked > 0, right, np.nan) / np.maximum(asked, 1) for uid, (right, asked) in counts.items()}


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
