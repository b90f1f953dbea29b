"""The `report/` folder of an experiment: every number with its interval, the figures, and the page."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.examples import EXAMPLES_IN_ALL, choose_examples
from fit_jax.evaluation.metrics import focus_accuracy, is_shifted, main_set
from fit_jax.evaluation.opening import answers_to, choose_opening, opening_html
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.radar import Panel, draw_radars
from fit_jax.evaluation.radar import in_words as radar_in_words
from fit_jax.evaluation.reference_lines import reference_lines, repeated_splits, split_titles
from fit_jax.evaluation.report import page_body, write_lines
from fit_jax.evaluation.verdict import methods_verdict
from fit_jax.experiment.analysis import MethodAnswer, by_kind, by_paraphrase, by_type, compare, followings, measures
from fit_jax.experiment.method_tables import (
    METHOD_NAMES,
    Context,
    comparison_table,
    kinds_table,
    measures_table,
    paper_table,
    paraphrases_table,
    types_table,
)
from fit_jax.experiment.other_models import ByModel, model_panels, models_table
from fit_jax.experiment.paper import paper_rows
from fit_jax.experiment.variation import draw_variation, in_words, variation_html
from fit_jax.files import make_folder, replace_with, write_text
from fit_jax.focus.example import TaskText
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.html import page
from fit_jax.markdown import as_text
from fit_jax.tables import Table

COLUMNS = 3


class Figure(NamedTuple):
    """Radars in a grid."""

    panels: Sequence[Panel | None]
    columns: int


def write_experiment_report(
    folder: Path,
    task: str,
    cells: Mapping[tuple[str, int], Sequence[Prediction]],
    shown: Mapping[str, Evaluation],
    encoder: PromptEncoder,
    reference: str,
    notes: Sequence[str],
    model: str = "",
    beside: ByModel = MappingProxyType({}),
    varied: str = "",
) -> Table:
    """Writes the report of all finished cells.

    Args:
        folder: The report's folder; files of an earlier report in it are replaced.
        task: Name of the task.
        cells: The predictions of each (method, seed).
        shown: By method, the evaluation whose examples the page shows.
        encoder: Renders the prompts that the page shows.
        reference: The method that the others are compared with.
        notes: What else a reader must know, one line each.
        model: The name of the model or variant; needed where there are others.
        beside: The rows of other models' or variants' experiments.
        varied: What variants differ in; "" where there are models beside.

    Returns:
        The main table.
    """
    make_folder(folder)
    answers = [MethodAnswer(method, seed, p) for (method, seed), predictions in cells.items() for p in predictions]
    rows = [row for (method, seed), p in cells.items() for row in focus_accuracy(p, method, seed, task)]
    write_lines(folder / "focus_accuracy.jsonl", rows)
    context = _context(answers)
    tables, figures = _tables(answers, encoder.text, task, reference, context), _figures(answers)
    section, pictured = "", []
    if beside:
        models = {**beside, model: rows} if varied else {model: rows, **beside}
        paraphrases = main_set(row["paraphrases"] for of in models.values() for row in of)
        tables.append(models_table(models, paraphrases, context, varied))
        figures |= _radars_across(models, paraphrases)
        if varied:
            pictured.append(f"![{as_text(in_words(models, varied, paraphrases))}](variation.png)")
            section = variation_html(models, varied, paraphrases)
            for suffix in ("svg", "png"):
                draw = partial(draw_variation, models, varied, paraphrases, kind=suffix)
                replace_with(folder / f"variation.{suffix}", draw)
    make_folder(folder / "tables")
    for table in tables:
        write_text(folder / "tables" / f"{table.name}.csv", table.csv())
        write_text(folder / "tables" / f"{table.name}.tex", table.latex())
    for name, figure in figures.items():
        for suffix in ("svg", "png"):
            replace_with(folder / f"{name}.{suffix}", partial(draw_radars, figure.panels, figure.columns, kind=suffix))
    title = f"Experiment on {task}"
    found = {METHOD_NAMES.get(method, method): value for method, value in followings(answers).items()}
    verdict = methods_verdict(found, METHOD_NAMES.get(reference, reference))
    parts = [f"# {as_text(title)}", as_text(verdict), "\n".join(f"- {as_text(note)}" for note in notes)]
    parts += [*pictured, *(f"![{as_text(_alt(figure))}]({name}.png)" for name, figure in figures.items())]
    write_text(folder / "summary.md", "\n\n".join([*parts, *(table.markdown() for table in tables)]) + "\n")
    write_text(folder / "index.html", _page(title, verdict, tables, figures, section, shown, encoder, notes))
    return tables[0]


def _context(answers: Sequence[MethodAnswer]) -> Context:
    predictions = [a.prediction for a in answers]
    titles = split_titles(dict.fromkeys(p.split for p in predictions), predictions)
    return Context(reference_lines(predictions), titles, bool(repeated_splits(predictions)))


def _tables(
    answers: Sequence[MethodAnswer], text: TaskText, task: str, reference: str, context: Context
) -> list[Table]:
    kinds, types = by_kind(answers), by_type(answers)
    paraphrase_sets = sorted({key[1] for key in kinds}, key=("heldout", "far", "train").index)
    tables = [kinds_table(kinds, paraphrases, context) for paraphrases in paraphrase_sets]
    paper = paper_rows(task)
    if paper:
        tables.append(paper_table(paper, types, paraphrase_sets[0], context.references))
    comparisons = compare(answers, reference)
    if comparisons:
        tables.append(comparison_table(comparisons, reference))
    return [
        *tables,
        measures_table(measures(answers)),
        paraphrases_table(by_paraphrase(answers), text, answers[0].prediction.feature),
        *(types_table(types, paraphrases, context) for paraphrases in paraphrase_sets),
    ]


def _figures(answers: Sequence[MethodAnswer]) -> dict[str, Figure]:
    """A radar of each method as in the paper's Figure 3, held-out paraphrases where asked: seen, and unseen values."""
    types = by_type(answers)
    paraphrases = main_set(key[1] for key in types)
    repeated = repeated_splits(a.prediction for a in answers)
    figures: dict[str, Figure] = {}
    for name, shifted in (("radar", False), ("radar_shifted", True)):
        panels: dict[str, tuple[dict[str, dict[str, float]], dict[str, dict[str, tuple[float, float]]]]] = {}
        for (method, at, split, focus), e in types.items():
            if at == paraphrases and is_shifted(split) == shifted and split not in repeated:
                lines, intervals = panels.setdefault(method, ({}, {}))
                lines.setdefault(split, {})[focus] = e.mean
                intervals.setdefault(split, {})[focus] = (e.ci_low, e.ci_high)
        if panels:
            shown = [Panel(METHOD_NAMES.get(m, m), *panel) for m, panel in panels.items()]
            figures[name] = Figure(shown, min(COLUMNS, len(shown)))
    return figures


def _radars_across(models: ByModel, paraphrases: str) -> dict[str, Figure]:
    """Radars of methods x models."""
    figures = {}
    for name, shifted in (("radar_models", False), ("radar_models_shifted", True)):
        panels, columns = model_panels(models, paraphrases, shifted)
        if panels:
            figures[name] = Figure(panels, columns)
    return figures


def _alt(figure: Figure) -> str:
    return " ".join(radar_in_words(panel) for panel in figure.panels if panel)


def _page(
    title: str,
    verdict: str,
    tables: Sequence[Table],
    figures: Mapping[str, Figure],
    section: str,
    shown: Mapping[str, Evaluation],
    encoder: PromptEncoder,
    notes: Sequence[str],
) -> str:
    examples: list[dict[str, Any]] = []
    cap = ""
    for method, evaluation in shown.items():
        found, cap = choose_examples(
            evaluation.queries,
            evaluation.predictions,
            lambda q: encoder.render(q.example, q.instruction),
            in_all=EXAMPLES_IN_ALL // len(shown),
        )
        examples += [{"method": METHOD_NAMES.get(method, method), **example} for example in found]
    cap = f"One seed of each method. Of each: {cap}"
    opening = choose_opening(next(iter(shown.values())).queries, encoder.text)
    answers = {
        METHOD_NAMES.get(method, method): answers_to(opening, evaluation) for method, evaluation in shown.items()
    }
    panels = [panel for figure in figures.values() for panel in figure.panels]
    body = page_body(opening_html(opening, answers), verdict, panels, tables, section)
    return page(title, "; ".join(note.rstrip(".") for note in notes), body, examples, cap)
