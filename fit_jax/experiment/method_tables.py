"""An experiment's tables, from estimates over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fit_jax.evaluation import result_tables
from fit_jax.evaluation.metrics import is_natural, is_shifted, kind_of, ordered
from fit_jax.evaluation.paraphrase_spread import Spread, spoken
from fit_jax.evaluation.reference_lines import speaks_of
from fit_jax.experiment.analysis import KINDS, Comparison, Estimate
from fit_jax.experiment.paper import DIFFERENCES, PaperRow
from fit_jax.focus.example import TaskText
from fit_jax.html import FEW
from fit_jax.tables import Code, Table, marked, share

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
    "knob": "knob",
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
        return f" {result_tables.REPEATING}" if self.repeats else ""


def kinds_table(estimates: Mapping[tuple[str, str, str, str], Estimate], paraphrases: str, context: Context) -> Table:
    """Methods x (kind of type, split), the paper's main comparison."""
    splits = list(dict.fromkeys(key[2] for key in estimates))
    columns = [(kind, split) for kind in KINDS for split in splits]
    rows = [
        (_name(method), *(_shown(estimates.get((method, paraphrases, split, kind))) for kind, split in columns))
        for method in _methods(estimates)
    ]
    aside = [
        (line, *(share(rates.get(split) if speaks_of(line, kind) else None) for kind, split in columns))
        for line, rates in context.references.items()
    ]
    aside.append(("examples (n)", *(_examples(estimates, paraphrases, split, kind) for kind, split in columns)))
    header = ("method", *(f"{kind} {context.titles[split]}" for kind, split in columns))
    caption = (
        f"Focus accuracy by kind of focus type, {result_tables.PARAPHRASE_NAMES[paraphrases]}: {ERRORS}. Core types "
        f"ask for y, spurious types for y_s. The last rows are what answers without reading reach.{context.caption}"
    )
    return Table(
        f"Core and spurious types, {result_tables.PARAPHRASE_NAMES[paraphrases]}",
        caption,
        header,
        (*rows, *aside),
        aside=len(aside),
        name=f"kinds_{paraphrases}",
    )


def types_table(estimates: Mapping[tuple[str, str, str, str], Estimate], paraphrases: str, context: Context) -> Table:
    """(Method, focus type) x splits: every cell."""
    splits = list(dict.fromkeys(key[2] for key in estimates))
    rows = [
        (_name(method), Code(focus), *(_shown(estimates.get((method, paraphrases, split, focus))) for split in splits))
        for method in _methods(estimates)
        for focus in ordered({key[3] for key in estimates})
    ]
    aside = [(line, "", *(share(rates.get(split)) for split in splits)) for line, rates in context.references.items()]
    aside.append(("examples (n)", "", *(_examples(estimates, paraphrases, split) for split in splits)))
    caption = (
        f"Focus accuracy of every focus type and split, {result_tables.PARAPHRASE_NAMES[paraphrases]}: {ERRORS}. The "
        f"last rows are what answers without reading reach.{context.caption}"
    )
    return Table(
        f"Every focus type, {result_tables.PARAPHRASE_NAMES[paraphrases]}",
        caption,
        ("method", "focus instruction", *(context.titles[split] for split in splits)),
        (*rows, *aside),
        texts=2,
        aside=len(aside),
        name=f"types_{paraphrases}",
    )


def comparison_table(comparisons: Sequence[Comparison], reference: str) -> Table:
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
    return Table(f"{_name(reference)} against each other method", caption, header, rows, texts=4, name="comparisons")


def paraphrases_table(spreads: Mapping[tuple[str, str, str], Spread], text: TaskText, feature: str) -> Table:
    """(Method, set, focus type): accuracy over paraphrases, its spread, and the worst one in words."""
    rows = []
    for (method, paraphrases, focus), spread in spreads.items():
        values, worst = [mean.value for mean in spread.accuracy.values()], spread.accuracy[spread.worst]
        low, high = worst.share_interval()
        words = spoken(text, focus, feature, paraphrases, spread.worst)
        figures = (str(len(values)), f"{min(values):.3f}", f"{max(values):.3f}", share(spread.deviation))
        interval = marked(f"[{low:.3f}, {high:.3f}]", worst.examples)
        rows.append((_name(method), Code(focus), paraphrases, words, *figures, interval, str(worst.examples)))
    caption = (
        "Focus accuracy of each paraphrase over the splits of values seen in training, mean over seeds: the worst one, "
        "how many there are, the lowest and the highest accuracy, the standard deviation between paraphrases "
        "beyond what chance between examples explains, and the worst one's 95 % interval over seeds and clusters. "
        "The lowest of many is low by chance too."
    )
    figures = ("paraphrases", "lowest", "highest", "deviation", "interval of the worst", "examples (n)")
    header = ("method", "focus instruction", "set", "worst paraphrase", *figures)
    return Table("By paraphrase", caption, header, tuple(rows), texts=4, name="paraphrases")


def measures_table(found: Mapping[tuple[str, str, str], tuple[float, float | None]]) -> Table:
    """Methods x further measures."""
    names = list(dict.fromkeys(key[2] for key in found))
    rows = []
    for method, paraphrases in dict.fromkeys((key[0], key[1]) for key in found):
        cells = (found.get((method, paraphrases, name)) for name in names)
        rows.append((_name(method), paraphrases, *("" if c is None else _with_deviation(*c) for c in cells)))
    caption = (
        "Further measures, mean and standard deviation over seeds. Spread: largest minus smallest accuracy of splits. "
        f"Worst group: lowest accuracy, on the standard splits, of a group of {FEW} examples or more that shares s and "
        f"y or, with multiple choice, s and whether y = y_s; {result_tables.WITHOUT_READING}. "
        "Flip rate: share of x whose answer goes from y to y_s with "
        "the instruction (1 is best); false flip rate: share of x with y = y_s whose answer changes (0 is best)."
    )
    return Table("Further measures", caption, ("method", "paraphrases", *names), tuple(rows), texts=2, name="measures")


def paper_table(
    rows: Sequence[PaperRow],
    estimates: Mapping[tuple[str, str, str, str], Estimate],
    paraphrases: str,
    references: Mapping[str, Mapping[str, float]],
) -> Table:
    """The paper's figures, and ours of the same method beside them; what answers without reading reach, below."""
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
    aside = []
    for line, rates in references.items():
        for shifted in sorted({row.shifted for row in rows}):
            names = [s for s in splits if is_shifted(s) == shifted and is_natural(s) == natural and s in rates]
            core = [rates[s] for s in names if speaks_of(line, "core")]
            shown = [line, "", "unseen" if shifted else "seen", "", _range(core)]
            for name in shaped:
                split = f"shifted_{name}" if shifted else name
                shown += ["", _range([rates[split]] if split in names and speaks_of(line, "spurious") else [])]
            aside.append(tuple(shown))
    header = ["method", "paper's model", "feature values", "core, paper", "core, ours"]
    for name in shaped:
        header += [f"spurious {name}, paper", "ours"]
    caption = (
        "The paper's focus accuracies in per cent, read off its plots (within 2 points), and ours: the range over the "
        "focus types (core: and over splits). Ours are of the model of this experiment. The last rows are what answers "
        "without reading reach. Of the data and the training "
        f"differ: {'; '.join(DIFFERENCES[rows[0].task])}."
    )
    return Table("Beside the paper", caption, tuple(header), (*lines, *aside), texts=3, aside=len(aside), name="paper")


def _methods(estimates: Mapping[tuple[str, str, str, str], Estimate]) -> list[str]:
    return list(dict.fromkeys(key[0] for key in estimates))


def _name(method: str) -> str:
    return METHOD_NAMES.get(method, method)


def _shown(e: Estimate | None) -> str:
    if e is None:
        return ""
    return marked(f"{_with_deviation(e.mean, e.std)} [{e.ci_low:.3f}, {e.ci_high:.3f}]", e.examples)


def _examples(
    estimates: Mapping[tuple[str, str, str, str], Estimate], paraphrases: str, split: str, kind: str | None = None
) -> str:
    """Most examples that a cell of the column has; of a focus type or kind, or of any."""
    asked = (e.examples for key, e in estimates.items() if key[1:3] == (paraphrases, split) and kind in (None, key[3]))
    return str(max(asked, default=0))


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _four_digits(p: float | None) -> str:
    return "" if p is None else f"{p:.4f}"


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = round(100 * min(values)), round(100 * max(values))
    return f"{low}" if low == high else f"{low}-{high}"
