"""The tables of a report: `summary.md`, the page and the terminal show the same ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from fit_jax.data.joint_sampling import correlation_table
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.evaluation.bias import bias_scores
from fit_jax.evaluation.metrics import (
    Accuracy,
    WorstGroup,
    calibration_error,
    flip_rates,
    kind_of,
    main_set,
    ordered,
    pooled,
    spreads,
    unparseable_rates,
    worst_groups,
)
from fit_jax.evaluation.paraphrase_spread import paraphrase_spreads, spoken
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import reference_lines, repeated_splits, split_titles, without_repeats
from fit_jax.focus.example import TaskText
from fit_jax.html import FEW
from fit_jax.tables import Code, Table, marked, share, share_in

PARAPHRASE_NAMES = {
    "train": "paraphrases seen in training",
    "heldout": "paraphrases never seen in training",
    "far": "paraphrases far from those of training",
}
REPEATED = (
    "with two answers they are one distribution. It is no further evidence, and spreads, averages and tests leave it "
    "out."
)
# What a worst group is to be read against.
WITHOUT_READING = (
    "an answer at random reaches one over the number of answers there, and the commonest answer, y_s where y is asked "
    "for, or y where y_s is, reaches 0"
)
REPEATING = f"A column that says so repeats another: {REPEATED}"


def result_tables(predictions: Sequence[Prediction], task: Task) -> list[Table]:
    """All tables of a report, the accuracies first: a table for each paraphrase set, the main one before the others."""
    cells = pooled(predictions)
    names = _in_order(key[1] for key in cells)
    titles = split_titles(names, predictions)
    features = _in_order(p.feature for p in predictions)
    unparseable, unreached = unparseable_rates(predictions), _unreached(predictions)
    bias = bias_scores(replace(p, feature="all") for p in predictions)
    references = reference_lines(predictions)
    sets = _in_order(key[0] for key in cells)
    main = main_set(sets)
    found = [accuracy_table(cells, references, at, titles) for at in sorted(sets, key=lambda at: at != main)]
    found += [
        _paraphrase_table(predictions, task.text),
        _steering_table(predictions, unreached),
        *([_feature_table(predictions, features, titles)] if len(features) > 1 else []),
        _worst_table(predictions),
        *([_unparseable_table(unparseable, names)] if unparseable else []),
        *([_bias_table(bias)] if bias else []),
        _rho_table(task.splits, names),
        correlation_table({name: task.splits[name].correlation for name in ("train", *names)}),
    ]
    return [table for table in found if table.rows]


def terminal_table(title: str, predictions: Sequence[Prediction]) -> Table:
    """The accuracies of the main paraphrase set asked, without intervals."""
    cells = pooled(predictions)
    paraphrases = main_set(key[0] for key in cells)
    titles = split_titles(_in_order(key[1] for key in cells), predictions)
    table = accuracy_table(cells, reference_lines(predictions), paraphrases, titles, brief=True)
    repeats = "; ".join(f"{name} repeats {low}" for name, low in repeated_splits(predictions).items())
    about = f"{repeats}: {REPEATED}" if repeats else ""
    return replace(table, title=f"{title}: focus accuracy, {PARAPHRASE_NAMES[paraphrases]}", caption=about)


def focus_table(predictions: Sequence[Prediction]) -> tuple[list[str], list[list[Any]]]:
    """Focus types x splits of the main paraphrase set asked: a header, and rows of a type and its accuracies.

    An accuracy is None where a split has no such question.
    """
    cells = pooled(predictions)
    paraphrases = main_set(key[0] for key in cells)
    names = split_titles(_in_order(key[1] for key in cells), predictions)
    rows = []
    for focus in ordered(key[2] for key in cells):
        found = (cells.get((paraphrases, name, focus)) for name in names)
        rows.append([focus, *(None if cell is None else cell.accuracy for cell in found)])
    return ["focus instruction", *names.values()], rows


def accuracy_table(
    cells: Mapping[tuple[str, str, str], Accuracy],
    references: Mapping[str, Mapping[str, float]],
    paraphrases: str,
    titles: Mapping[str, str],
    brief: bool = False,
) -> Table:
    """Focus types x splits of one paraphrase set, and what answers without reading reach."""
    rows = []
    for focus in ordered(key[2] for key in cells):
        found = [cells.get((paraphrases, name, focus)) for name in titles]
        shares = ("" if c is None else _accuracy(c, brief) for c in found)
        rows.append((Code(focus), *(() if brief else ("y" if kind_of(focus) == "core" else "y_s",)), *shares))
    blank = () if brief else ("",)
    aside = [(line, *blank, *(share(rates.get(name)) for name in titles)) for line, rates in references.items()]
    if not brief:
        counts = (max((c.count for key, c in cells.items() if key[1] == name), default=0) for name in titles)
        aside.append(("examples (n)", *blank, *map(str, counts)))
    caption = (
        "Share of answers that follow the instruction, with 95 % intervals over clusters of examples. The last rows "
        "are what answers without reading the question would reach."
    )
    if any(name != title for name, title in titles.items()):
        caption += f" {REPEATING}"
    return Table(
        f"Focus accuracy, {PARAPHRASE_NAMES[paraphrases]}",
        "" if brief else caption,
        ("focus instruction", *(() if brief else ("right is",)), *titles.values()),
        (*rows, *aside),
        texts=1 if brief else 2,
        aside=len(aside),
    )


def _accuracy(cell: Accuracy, brief: bool) -> str:
    if brief:
        return share(cell.accuracy, cell.count)
    return share_in(cell.accuracy, cell.ci_low, cell.ci_high, cell.count)


def _paraphrase_table(predictions: Sequence[Prediction], text: TaskText) -> Table:
    """Lowest, highest and spread of the paraphrases' accuracies, and the worst one in words."""
    feature = predictions[0].feature
    rows = []
    for (paraphrases, focus), spread in paraphrase_spreads(predictions).items():
        values = [mean.value for mean in spread.accuracy.values()]
        worst = spread.accuracy[spread.worst]
        low, high = worst.share_interval()
        words = spoken(text, focus, feature, paraphrases, spread.worst)
        about = marked(f"{words} ({worst.examples} examples: [{low:.3f}, {high:.3f}])", worst.examples)
        figures = (str(len(values)), f"{min(values):.3f}", f"{max(values):.3f}", share(spread.deviation))
        rows.append((Code(focus), paraphrases, about, *figures))
    caption = (
        "The focus accuracy of each paraphrase, over all splits of values seen in training: the worst one with the "
        "examples asked in it, how many were asked, the lowest and the highest accuracy, and the standard deviation "
        "between them beyond what chance between examples explains. The lowest of many is low by chance too."
    )
    header = ("focus instruction", "set", "worst paraphrase", "paraphrases", "lowest", "highest", "deviation")
    return Table("By paraphrase", caption, header, tuple(rows), texts=3)


def _steering_table(predictions: Sequence[Prediction], unreached: float) -> Table:
    rows = []
    for (paraphrases, shifted, focus), spread in spreads(without_repeats(predictions)).items():
        rows.append((f"spread over {'shifted ' if shifted else ''}splits of {focus}", paraphrases, "", f"{spread:.3f}"))
    for row in flip_rates(predictions):
        for name, count in (("flip_rate", "count"), ("false_flip_rate", "false_count")):
            if (rate := row[name]) is not None:
                where = f"{name.replace('_', ' ')}, {row['split']}, {row['feature']}"
                rows.append((where, row["paraphrases"], str(row[count]), share(rate, row[count])))
    rows.append(("expected calibration error", "all", "", f"{calibration_error(predictions):.3f}"))
    caption = (
        "The spread is the largest minus the smallest accuracy over splits: 0 where the model does not lean on the "
        "correlation. The flip rate is the share of x with y != y_s whose answer goes from y to y_s when the "
        "instruction goes from focus(core) & ignore(spurious) to focus(spurious) & ignore(core); 1 is best. The false "
        "flip rate is the share of x with y = y_s whose answer changes all the same; 0 is best."
    )
    if unreached:
        caption += (
            f" Answers were searched for with few beams: {unreached:.1%} of the questions have candidates that the "
            "search did not reach. They count as impossible, in the probabilities shown and in calibration too."
        )
    header = ("measure", "paraphrases", "examples (n)", "value")
    return Table("Steering", caption, header, tuple(rows), texts=2)


def _feature_table(predictions: Sequence[Prediction], features: Sequence[str], titles: Mapping[str, str]) -> Table:
    rows = []
    for feature in features:
        own = [p for p in predictions if p.feature == feature]
        cells = pooled(own)
        for paraphrases in _in_order(key[0] for key in cells):
            for focus in ordered(key[2] for key in cells):
                values = (cells.get((paraphrases, name, focus)) for name in titles)
                shares = ("" if c is None else share(c.accuracy, c.count) for c in values)
                rows.append((feature, Code(focus), paraphrases, *shares))
        for line, rates in reference_lines(own).items():
            rows.append((feature, line, "", *(share(rates.get(name)) for name in titles)))
    header = ("feature", "focus instruction", "paraphrases", *titles.values())
    return Table("By feature", "Focus accuracy by spurious feature.", header, tuple(rows), texts=3)


def _worst_table(predictions: Sequence[Prediction]) -> Table:
    weakest: dict[tuple[str, str], WorstGroup] = {}
    for row in worst_groups(predictions):
        key = (row["focus"], row["paraphrases"])
        if key not in weakest or _rank(row) < _rank(weakest[key]):
            weakest[key] = row
    rows = []
    for (focus, paraphrases), r in weakest.items():
        where = (r["split"], r["feature"], r["value"], r["answer"])
        accuracy = share_in(r["accuracy"], r["ci_low"], r["ci_high"], r["count"])
        rows.append(
            (
                Code(focus),
                paraphrases,
                *where,
                str(r["count"]),
                accuracy,
            )
        )
    caption = (
        "The group with the lowest focus accuracy over all splits, of the groups that have "
        f"{FEW} examples where there are "
        "any. A group shares the spurious value s and the true label y or, with multiple choice, s and whether y = "
        f"y_s; {WITHOUT_READING}."
    )
    header = ("focus instruction", "paraphrases", "split", "feature", "s", "y", "examples (n)", "accuracy")
    return Table("Weakest groups", caption, header, tuple(rows), texts=6)


def _unparseable_table(rates: Mapping[tuple[str, str], float], names: Sequence[str]) -> Table:
    sets = _in_order(k[0] for k in rates)
    rows = tuple((at, *(share(rates.get((at, name))) for name in names)) for at in sets)
    caption = (
        "Answers were written freely and matched to the candidates: word for word, or else by the one candidate that "
        "they contain. The share that means no candidate, or more than one, counts as wrong in every accuracy."
    )
    return Table("Unparseable answers", caption, ("paraphrases", *names), rows)


def _bias_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    cells = {(r["paraphrases"], r["focus"], r["split"]): r for r in scores}
    names, rows = _in_order(key[2] for key in cells), []
    for paraphrases in _in_order(key[0] for key in cells):
        for focus in ordered(key[1] for key in cells):
            found = (cells[paraphrases, focus, name] for name in names)
            pairs = ((r["s_dis"], r["s_amb"]) for r in found)
            shown = (" / ".join("none" if score is None else f"{score:+.3f}" for score in pair) for pair in pairs)
            rows.append((Code(focus), paraphrases, *shown))
    caption = (
        "BBQ bias scores s_dis / s_amb over all features (Parrish et al., 2022): 0 is unbiased, 1 always stereotyped, "
        "-1 always against the stereotype. They are taken on the natural distribution and under the types whose right "
        "answer is y, where a model without mistakes scores 0. Unparseable answers are left out."
    )
    return Table("Social bias", caption, ("focus instruction", "paraphrases", *names), tuple(rows), texts=2)


def _rho_table(splits: Mapping[str, Split], names: Sequence[str]) -> Table:
    rows = []
    for name in ("train", *names):
        for feature, values in splits[name].rho.items():
            for value, rho in values.items():
                asked = "as it came" if rho.asked is None else f"{rho.asked:.3f}"
                rows.append((name, feature, value, asked, f"{rho.realised:.3f}", str(rho.count)))
    caption = "rho = P(y = y_s | s): how well the spurious value s predicts its label, asked for and realised."
    header = ("split", "feature", "s", "rho asked", "rho realised", "examples (n)")
    return Table("The data", caption, header, tuple(rows), texts=3)


def _rank(row: WorstGroup) -> tuple[bool, float]:
    """Groups of enough examples come first, then those of low accuracy."""
    return row["count"] < FEW, row["accuracy"]


def _unreached(predictions: Sequence[Prediction]) -> float:
    return sum(not all(map(isfinite, p.log_probs)) for p in predictions) / len(predictions)


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
