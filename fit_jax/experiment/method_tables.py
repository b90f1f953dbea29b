"""An experiment's tables, each written as Markdown, CSV and LaTeX from the same rows."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fit_jax.evaluation import result_tables
from fit_jax.evaluation.metrics import is_natural, is_shifted, kind_of, ordered, three_digits
from fit_jax.evaluation.paraphrase_spread import Spread, spoken
from fit_jax.evaluation.reference_lines import speaks_of
from fit_jax.experiment.analysis import KINDS, Comparison, Estimate
from fit_jax.experiment.paper import DIFFERENCES, PaperRow
from fit_jax.focus.example import TaskText

if TYPE_CHECKING:
    from rich.table import Table

METHOD_NAMES = {
    "zero_shot": "zero-shot",
    "few_shot": "few-shot",
    "sft_y": "SFT(y)",
    "sft_y_focus": "SFT(y_focus)",
    "fit": "FIT",
    "poe": "product of experts",
    "group_dro": "group DRO",
    "group_balanced": "group-balanced sampling",
    "jtt": "just train twice",
    "dfr": "deep feature reweighting",
    "activation_addition": "activation addition",
    "pasta": "PASTA",
    "spotlight": "Spotlight",
}

ERRORS = (
    "mean and standard deviation over seeds [95 % interval over seeds and clusters of examples; with one seed over "
    "clusters alone]"
)


class Context(NamedTuple):
    """What a table of accuracies is read against.

    Attributes:
        references: What answers without reading reach, by line and split (`evaluation.reference_lines`).
        titles: What columns call the splits.
        repeats: Whether a split repeats another.
    """

    references: Mapping[str, Mapping[str, float]]
    titles: Mapping[str, str]
    repeats: bool

    @property
    def caption(self) -> str:
        """Explains a repeated split, where there is one."""
        return f" A column that says so repeats another: {result_tables.REPEATED}" if self.repeats else ""


@dataclass(frozen=True)
class Grid:
    """A table: its file's name, heading and caption, its header and its rows; the first column is text."""

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Heading, caption and a Markdown table."""
        return f"## {self.title}\n\n{self.caption}\n\n{result_tables.markdown(self.header, self.rows)}"

    def csv(self) -> str:
        """Comma-separated values with a header."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()

    def terminal(self) -> "Table":
        """For `rich` to print."""
        from rich.table import Table

        table = Table(title=self.caption, title_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(name, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row)
        return table

    def latex(self) -> str:
        """A `booktabs` table that compiles by itself within a document."""
        body = [" & ".join(map(_tex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{_tex(self.caption)}}}",
                rf"  \label{{tab:{self.name.replace('_', '-')}}}",
                rf"  \begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"    \toprule",
                "    " + " & ".join(map(_tex, self.header)) + r" \\",
                r"    \midrule",
                *(f"    {line}" for line in body),
                r"    \bottomrule",
                r"  \end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def kinds_grid(estimates: Mapping[tuple[str, str, str, str], Estimate], paraphrases: str, context: Context) -> Grid:
    """Methods x (kind of type, split), the paper's main comparison."""
    splits = list(dict.fromkeys(key[2] for key in estimates))
    columns = [(kind, split) for kind in KINDS for split in splits]
    rows = [
        (_name(method), *(_shown(estimates.get((method, paraphrases, split, kind))) for kind, split in columns))
        for method in _methods(estimates)
    ]
    rows += [
        (line, *(three_digits(rates.get(split) if speaks_of(line, kind) else None) for kind, split in columns))
        for line, rates in context.references.items()
    ]
    header = ("method", *(f"{kind} {context.titles[split]}" for kind, split in columns))
    caption = (
        f"Focus accuracy by kind of focus type, {result_tables.PARAPHRASE_NAMES[paraphrases]}: {ERRORS}. Core types "
        f"ask for y, spurious types for y_s. The last rows read nothing.{context.caption}"
    )
    return Grid(
        f"kinds_{paraphrases}",
        f"Core and spurious types, {result_tables.PARAPHRASE_NAMES[paraphrases]}",
        caption,
        header,
        tuple(rows),
    )


def types_grid(estimates: Mapping[tuple[str, str, str, str], Estimate], paraphrases: str, context: Context) -> Grid:
    """(Method, focus type) x splits: every cell."""
    splits = list(dict.fromkeys(key[2] for key in estimates))
    rows = [
        (_name(method), focus, *(_shown(estimates.get((method, paraphrases, split, focus))) for split in splits))
        for method in _methods(estimates)
        for focus in ordered({key[3] for key in estimates})
    ]
    rows += [
        (line, "", *(three_digits(rates.get(split)) for split in splits)) for line, rates in context.references.items()
    ]
    caption = (
        f"Focus accuracy of every focus type and split, {result_tables.PARAPHRASE_NAMES[paraphrases]}: {ERRORS}. The "
        f"last rows read nothing.{context.caption}"
    )
    return Grid(
        f"types_{paraphrases}",
        f"Every focus type, {result_tables.PARAPHRASE_NAMES[paraphrases]}",
        caption,
        ("method", "focus instruction", *(context.titles[split] for split in splits)),
        tuple(rows),
    )


def comparison_grid(comparisons: Sequence[Comparison], reference: str) -> Grid:
    """The reference method against every other."""
    rows = tuple(
        (
            _name(c.method),
            c.kind,
            c.split,
            c.paraphrases,
            f"{c.difference:+.3f}",
            f"[{c.ci_low:+.3f}, {c.ci_high:+.3f}]",
            _four_digits(c.p),
            _four_digits(c.p_holm),
        )
        for c in comparisons
    )
    caption = (
        f"{_name(reference)} minus each other method, on the same seeds and examples: mean difference of focus "
        "accuracy, 95 % interval over seeds and clusters of examples, p of the paired t-test that belongs to it, and p "
        "after Holm's correction. With one seed the interval is over clusters alone, and there is no p: one seed tells "
        "nothing of others."
    )
    header = ("method", "types", "split", "paraphrases", "difference", "95 % interval", "p", "p (Holm)")
    return Grid("comparisons", f"{_name(reference)} against each other method", caption, header, rows)


def paraphrases_grid(spreads: Mapping[tuple[str, str, str], Spread], text: TaskText, feature: str) -> Grid:
    """(Method, set, focus type): accuracy over paraphrases, its spread, and the worst one in words."""
    rows = []
    for (method, paraphrases, focus), spread in spreads.items():
        values, worst = [mean.value for mean in spread.accuracy.values()], spread.accuracy[spread.worst]
        low, high = worst.share_interval()
        row = [_name(method), paraphrases, focus, str(len(values)), f"{min(values):.3f}", f"{max(values):.3f}"]
        words = spoken(text, focus, feature, paraphrases, spread.worst)
        rows.append((*row, three_digits(spread.deviation), f"[{low:.3f}, {high:.3f}]", words))
    caption = (
        "Focus accuracy of each paraphrase over all seeds and the splits of values seen in training: the lowest, the "
        "highest, the standard deviation between paraphrases beyond what chance between examples explains, and the "
        "worst one with its 95 % interval over clusters of examples. The lowest of many is low by chance too."
    )
    header = (
        "method",
        "set",
        "focus instruction",
        "paraphrases",
        "lowest",
        "highest",
        "deviation",
        "interval",
        "worst",
    )
    return Grid("paraphrases", "By paraphrase", caption, header, tuple(rows))


def measures_grid(found: Mapping[tuple[str, str, str], tuple[float, float | None]]) -> Grid:
    """Methods x further measures."""
    names = list(dict.fromkeys(key[2] for key in found))
    rows = []
    for method, paraphrases in dict.fromkeys((key[0], key[1]) for key in found):
        cells = (found.get((method, paraphrases, name)) for name in names)
        rows.append((_name(method), paraphrases, *("" if c is None else _with_deviation(*c) for c in cells)))
    caption = (
        "Further measures, mean and standard deviation over seeds. Spread: largest minus smallest accuracy of splits. "
        "Worst group: lowest accuracy, on the standard splits, of a group that shares s and y or, with multiple "
        "choice, s and whether y = y_s. Flip rate: share of x whose answer goes from y to y_s with the instruction "
        "(1 is best); false flip rate: share of x with y = y_s whose answer changes (0 is best)."
    )
    return Grid("measures", "Further measures", caption, ("method", "paraphrases", *names), tuple(rows))


def paper_grid(
    rows: Sequence[PaperRow], estimates: Mapping[tuple[str, str, str, str], Estimate], paraphrases: str
) -> Grid:
    """The paper's figures, and ours of the same method beside them."""
    splits = list(dict.fromkeys(key[2] for key in estimates))
    natural = any("natural" in row.spurious for row in rows)
    shaped = ("natural",) if natural else ("iid", "high", "low", "flipped")
    lines = []
    for row in rows:
        names = [s for s in splits if is_shifted(s) == row.shifted and is_natural(s) == natural]
        ours = {(key[2], key[3]): e.mean for key, e in estimates.items() if key[:2] == (row.method, paraphrases)}
        core = [v for (split, focus), v in ours.items() if kind_of(focus) == "core" and split in names]
        shown = [_name(row.method), row.model, "unseen" if row.shifted else "seen", str(row.core), _range(core)]
        for name in shaped:
            split = f"shifted_{name}" if row.shifted else name
            values = [v for (at, focus), v in ours.items() if kind_of(focus) == "spurious" and at == split]
            paper = row.spurious.get(name, row.spurious.get("all"))
            shown += [str(paper or ""), _range(values)]
        lines.append(tuple(shown))
    header = ["method", "paper's model", "feature values", "core, paper", "core, ours"]
    for name in shaped:
        header += [f"spurious {name}, paper", "ours"]
    caption = (
        "The paper's focus accuracies in per cent, read off its plots (within 2 points), and ours: the range over the "
        "focus types (core: and over splits). Ours are of the model of this experiment. Of the data and the training "
        f"differ: {'; '.join(DIFFERENCES[rows[0].task])}."
    )
    return Grid("paper", "Beside the paper", caption, tuple(header), tuple(lines))


def _methods(estimates: Mapping[tuple[str, str, str, str], Estimate]) -> list[str]:
    return list(dict.fromkeys(key[0] for key in estimates))


def _name(method: str) -> str:
    return METHOD_NAMES.get(method, method)


def _shown(e: Estimate | None) -> str:
    return "" if e is None else f"{_with_deviation(e.mean, e.std)} [{e.ci_low:.3f}, {e.ci_high:.3f}]"


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _four_digits(p: float | None) -> str:
    return "" if p is None else f"{p:.4f}"


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = round(100 * min(values)), round(100 * max(values))
    return f"{low}" if low == high else f"{low}-{high}"


_TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
