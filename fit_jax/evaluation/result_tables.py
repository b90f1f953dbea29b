"""Focus accuracy as tables: Markdown for `summary.md`, and one for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.evaluation.bias import bias_scores
from fit_jax.evaluation.markdown import as_text
from fit_jax.evaluation.metrics import (
    Accuracy,
    calibration_error,
    flip_rates,
    ordered,
    pooled,
    spreads,
    three_digits,
    unparseable_rates,
    worst_groups,
)
from fit_jax.evaluation.paraphrase_spread import paraphrase_spreads, spoken
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import reference_lines, repeated_splits, split_titles, without_repeats
from fit_jax.focus.example import TaskText

if TYPE_CHECKING:
    from rich.table import Table

PARAPHRASE_NAMES = {
    "train": "paraphrases seen in training",
    "heldout": "paraphrases never seen in training",
    "far": "paraphrases far from those of training",
}
TYPE_NAMES = {
    "none": "no instruction; right is y",
    "focus(core)": "right is y",
    "ignore(spurious)": "right is y",
    "focus(core) & ignore(spurious)": "right is y",
    "focus(spurious)": "right is y_s",
    "focus(spurious) & ignore(core)": "right is y_s",
}
REPEATED = (
    "with two answers they are one distribution. It is no further evidence, and spreads, averages and tests leave it "
    "out."
)
SPLIT_NAMES = {
    "iid": "the spurious feature is independent of the label, as in training",
    "high": "the spurious feature predicts its own label y_s",
    "low": "the spurious feature rarely agrees with y_s",
    "flipped": "the spurious feature predicts another label than y_s; right for the spurious types is still y_s",
    "natural": "the data's natural distribution, with no chosen rho",
}


def summary(title: str, predictions: Sequence[Prediction], task: Task) -> str:
    """`summary.md`: what was measured, each table with its intervals, and what to compare it with.

    Args:
        title: First heading.
        predictions: All predictions of the evaluation.
        task: The task asked about: its splits, for the rho realised, and what it has to say about its data.
    """
    cells = pooled(predictions)
    names = _in_order(key[1] for key in cells)
    parts = [
        f"# {as_text(title)}",
        "Focus accuracy is the share of answers equal to the focus label: the answer that follows the focus "
        "instruction. Brackets hold 95 % Wilson intervals over clusters of examples, for this one seed; answers are "
        "the most probable of the candidates, unless they were written freely. y is the true label, y_s the label tied "
        "to the value of the spurious feature.",
        *(f"`{name}` has the P(y = y_s) of `{low}`: {REPEATED}" for name, low in repeated_splits(predictions).items()),
    ]
    titles = split_titles(names, predictions)
    for paraphrases in _in_order(key[0] for key in cells):
        table = _accuracy_table(cells, reference_lines(predictions), paraphrases, titles)
        parts += [f"## Focus accuracy, {PARAPHRASE_NAMES[paraphrases]}", table]
    by_paraphrase = _paraphrase_table(predictions, task.text)
    if by_paraphrase:
        parts += ["## By paraphrase", by_paraphrase]
    parts += ["## Steering", _steering_table(predictions)]
    features = _in_order(p.feature for p in predictions)
    if len(features) > 1:
        parts += ["## By feature", _feature_table(predictions, features, titles)]
    parts += ["## Weakest groups", _worst_table(predictions)]
    unparseable = unparseable_rates(predictions)
    if unparseable:
        parts += ["## Unparseable answers", _unparseable_table(unparseable, names)]
    unreached = sum(not all(map(isfinite, p.log_probs)) for p in predictions)
    if unreached:
        parts += [
            "## Beam search",
            f"Answers were searched for with few beams: {unreached / len(predictions):.1%} of the questions have "
            "candidates that the search did not reach. They count as impossible, in the probabilities shown and in "
            "calibration too.",
        ]
    bias = bias_scores(replace(p, feature="all") for p in predictions)
    if bias:
        parts += ["## Social bias", _bias_table(bias)]
    parts += ["## The data", _rho_table(task.splits, names)]
    parts += [f"- `{name}`: {_split_name(name)}" for name in names] + [f"- {as_text(note)}" for note in task.notes]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ").replace("|\n- ", "|\n\n- ") + "\n"


def terminal_table(title: str, predictions: Sequence[Prediction]) -> "Table":
    """Focus types x splits of the main paraphrase set asked, for `rich` to print."""
    from rich.table import Table

    paraphrases = main_set(p.paraphrases for p in predictions)
    names = split_titles(_in_order(p.split for p in predictions), predictions)
    table = Table(title=f"{title}: focus accuracy, {PARAPHRASE_NAMES[paraphrases]}", title_justify="left")
    header, rows = focus_table(predictions)
    table.add_column(header[0], no_wrap=True)
    for title in header[1:]:
        table.add_column(title, justify="right")
    for focus, *cells in rows:
        table.add_row(focus, *("" if cell is None else f"{cell:.3f}" for cell in cells))
    for line, rates in reference_lines(predictions).items():
        table.add_row(line, *(three_digits(rates.get(name)) for name in names), style="dim")
    return table


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


def main_set(asked: Iterable[str]) -> str:
    """The paraphrase set that figures and short tables show: held-out ones where they were asked."""
    present = set(asked)
    return next(name for name in ("heldout", "train", "far") if name in present)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _accuracy_table(
    cells: Mapping[tuple[str, str, str], Accuracy],
    references: Mapping[str, Mapping[str, float]],
    paraphrases: str,
    names: Mapping[str, str],
) -> str:
    rows = []
    for focus in ordered(key[2] for key in cells):
        row = [f"`{focus}` ({TYPE_NAMES[focus]})"]
        for name in names:
            cell = cells.get((paraphrases, name, focus))
            row.append("" if cell is None else f"{cell.accuracy:.3f} [{cell.ci_low:.3f}, {cell.ci_high:.3f}]")
        rows.append(row)
    rows += [[line, *(three_digits(rates.get(name)) for name in names)] for line, rates in references.items()]
    counts = {name: max(c.count for key, c in cells.items() if key[1] == name) for name in names}
    rows.append(["examples", *(str(counts[name]) for name in names)])
    return markdown(["focus instruction", *names.values()], rows)


def _paraphrase_table(predictions: Sequence[Prediction], text: TaskText) -> str:
    """Lowest, highest and spread of the paraphrases' accuracies, and the worst one in words; "" without any."""
    feature = predictions[0].feature
    rows = []
    for (paraphrases, focus), spread in paraphrase_spreads(predictions).items():
        values = [mean.value for mean in spread.accuracy.values()]
        worst = spread.accuracy[spread.worst]
        low, high = worst.share_interval()
        rows.append(
            [
                f"`{focus}`",
                paraphrases,
                str(len(values)),
                f"{min(values):.3f}",
                f"{max(values):.3f}",
                three_digits(spread.deviation),
                f"{spoken(text, focus, feature, paraphrases, spread.worst)} ({worst.examples} examples: "
                f"[{low:.3f}, {high:.3f}])",
            ]
        )
    if not rows:
        return ""
    about = (
        "The focus accuracy of each paraphrase, over all splits of values seen in training: how many were asked, the "
        "lowest and the highest, the standard deviation between them beyond what chance between examples explains, and "
        "the worst one with the examples asked in it. The lowest of many is low by chance too."
    )
    header = ["focus instruction", "set", "paraphrases", "lowest", "highest", "deviation", "worst paraphrase"]
    return about + "\n\n" + markdown(header, rows)


def _steering_table(predictions: Sequence[Prediction]) -> str:
    lines = []
    for (paraphrases, shifted, focus), spread in spreads(without_repeats(predictions)).items():
        lines.append([f"spread over {'shifted ' if shifted else ''}splits of `{focus}`", paraphrases, f"{spread:.3f}"])
    for row in flip_rates(predictions):
        where = f"{row['split']}, {as_text(row['feature'])}"
        if row["flip_rate"] is not None:
            lines.append(
                [
                    f"flip rate, {where} (of {row['count']} x with y != y_s)",
                    row["paraphrases"],
                    f"{row['flip_rate']:.3f}",
                ]
            )
        if row["false_flip_rate"] is not None:
            lines.append([f"false flip rate, {where}", row["paraphrases"], f"{row['false_flip_rate']:.3f}"])
    lines.append(["expected calibration error", "all", f"{calibration_error(predictions):.3f}"])
    text = (
        "The spread is the largest minus the smallest accuracy over splits: 0 where the model does not lean on the "
        "correlation. The flip rate is the share of x whose answer goes from y to y_s when the instruction goes from "
        "`focus(core) & ignore(spurious)` to `focus(spurious) & ignore(core)`; 1 is best. The false flip rate is the "
        "share of x with y = y_s whose answer changes all the same; 0 is best."
    )
    return text + "\n\n" + markdown(["measure", "paraphrases", "value"], lines)


def _feature_table(predictions: Sequence[Prediction], features: Sequence[str], names: Mapping[str, str]) -> str:
    rows = []
    for feature in features:
        own = [p for p in predictions if p.feature == feature]
        cells = pooled(own)
        for paraphrases in _in_order(key[0] for key in cells):
            for focus in ordered(key[2] for key in cells):
                values = [cells.get((paraphrases, name, focus)) for name in names]
                rows.append(
                    [
                        f"{as_text(feature)}: `{focus}`",
                        paraphrases,
                        *("" if c is None else f"{c.accuracy:.3f}" for c in values),
                    ]
                )
        for line, rates in reference_lines(own).items():
            rows.append([f"{as_text(feature)}: {line}", "", *(three_digits(rates.get(name)) for name in names)])
    return markdown(["feature and focus instruction", "paraphrases", *names.values()], rows)


def _worst_table(predictions: Sequence[Prediction]) -> str:
    weakest: dict[tuple[str, str], dict] = {}
    for row in worst_groups(predictions):
        key = (row["focus"], row["paraphrases"])
        if key not in weakest or row["accuracy"] < weakest[key]["accuracy"]:
            weakest[key] = row
    rows = [
        [
            f"`{focus}`",
            paraphrases,
            r["split"],
            *map(as_text, (r["feature"], r["value"], r["answer"])),
            str(r["count"]),
            f"{r['accuracy']:.3f}",
        ]
        for (focus, paraphrases), r in weakest.items()
    ]
    text = (
        "The group with the lowest focus accuracy, over all splits. A group shares the spurious value s and the true "
        "label y or, with multiple choice, s and whether y = y_s."
    )
    header = ["focus instruction", "paraphrases", "split", "feature", "s", "y", "examples", "accuracy"]
    return text + "\n\n" + markdown(header, rows)


def _unparseable_table(rates: Mapping[tuple[str, str], float], names: Sequence[str]) -> str:
    rows = [
        [paraphrases, *(three_digits(rates.get((paraphrases, name))) for name in names)]
        for paraphrases in _in_order(k[0] for k in rates)
    ]
    text = (
        "Answers were written freely and matched to the candidates: word for word, or else by the one candidate that "
        "they contain. The share that means no candidate, or more than one, counts as wrong in every accuracy."
    )
    return text + "\n\n" + markdown(["paraphrases", *names], rows)


def _bias_table(scores: Sequence[Mapping[str, Any]]) -> str:
    cells = {(r["paraphrases"], r["focus"], r["split"]): r for r in scores}
    names, rows = _in_order(key[2] for key in cells), []
    for paraphrases in _in_order(key[0] for key in cells):
        for focus in ordered(key[1] for key in cells):
            pairs = [
                (cells[paraphrases, focus, name]["s_dis"], cells[paraphrases, focus, name]["s_amb"]) for name in names
            ]
            shown = (" / ".join("none" if score is None else f"{score:+.3f}" for score in pair) for pair in pairs)
            rows.append([f"`{focus}`", paraphrases, *shown])
    text = (
        "BBQ bias scores s_dis / s_amb over all features (Parrish et al., 2022): 0 is unbiased, 1 always stereotyped, "
        "-1 always against the stereotype. They are taken on the natural distribution and under the types whose right "
        "answer is y, where a model without mistakes scores 0. Unparseable answers are left out."
    )
    return text + "\n\n" + markdown(["focus instruction", "paraphrases", *names], rows)


def _rho_table(splits: Mapping[str, Split], names: Sequence[str]) -> str:
    rows = []
    for name in ("train", *names):
        for feature, values in splits[name].rho.items():
            for value, rho in values.items():
                asked = "as it came" if rho.asked is None else f"{rho.asked:.3f}"
                rows.append([name, as_text(feature), as_text(value), asked, f"{rho.realised:.3f}", str(rho.count)])
    text = "rho = P(y = y_s | s): how well the spurious value predicts its label, asked for and realised."
    return text + "\n\n" + markdown(["split", "feature", "s", "rho asked", "rho realised", "examples"], rows)


def _split_name(name: str) -> str:
    plain = name.removeprefix("shifted_")
    text = SPLIT_NAMES.get(plain, plain)
    return text if plain == name else f"values of the spurious feature never seen in training; {text}"


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
