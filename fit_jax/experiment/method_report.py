"""The `report/` folder of an experiment: every number with its interval, the figures, and the page."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from fit_jax.evaluation import html
from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.markdown import as_text
from fit_jax.evaluation.metrics import focus_accuracy, is_shifted
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.radar import Panel, draw_radars
from fit_jax.evaluation.reference_lines import reference_lines, repeated_splits, split_titles
from fit_jax.evaluation.report import write_lines
from fit_jax.evaluation.result_tables import main_set
from fit_jax.experiment.analysis import MethodAnswer, by_kind, by_paraphrase, by_type, compare, measures
from fit_jax.experiment.method_tables import (
    METHOD_NAMES,
    Context,
    Grid,
    comparison_grid,
    kinds_grid,
    measures_grid,
    paper_grid,
    paraphrases_grid,
    types_grid,
)
from fit_jax.experiment.other_models import ByModel, model_panels, models_grid
from fit_jax.experiment.paper import paper_rows
from fit_jax.files import make_folder, replace_with, write_text
from fit_jax.focus.example import TaskText
from fit_jax.focus.prompts import PromptEncoder

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
) -> Grid:
    """Writes the report of all finished cells.

    Args:
        folder: The report's folder; files of an earlier report in it are replaced.
        task: Name of the task.
        cells: The predictions of each (method, seed).
        shown: By method, the evaluation whose examples the page shows.
        encoder: Renders the prompts that the page shows.
        reference: The method that the others are compared with.
        notes: What else a reader must know, one line each.
        model: The model's name; needed where there are others.
        beside: The rows of other models' experiments.

    Returns:
        The main table.
    """
    make_folder(folder)
    answers = [MethodAnswer(method, seed, p) for (method, seed), predictions in cells.items() for p in predictions]
    rows = [row for (method, seed), p in cells.items() for row in focus_accuracy(p, method, seed, task)]
    write_lines(folder / "focus_accuracy.jsonl", rows)
    context = _context(answers)
    grids, figures = _grids(answers, encoder.text, task, reference, context), _figures(answers)
    if beside:
        more, pictures = _across_models({model: rows, **beside}, context)
        grids, figures = [*grids, *more], {**figures, **pictures}
    make_folder(folder / "tables")
    for grid in grids:
        write_text(folder / "tables" / f"{grid.name}.csv", grid.csv())
        write_text(folder / "tables" / f"{grid.name}.tex", grid.latex())
    for name, figure in figures.items():
        for suffix in ("svg", "png"):
            replace_with(folder / f"{name}.{suffix}", lambda path, f=figure: draw_radars(f.panels, f.columns, path))
    title = f"Experiment on {task}"
    parts = [f"# {as_text(title)}", "\n".join(f"- {as_text(note)}" for note in notes)]
    parts += [f"![Focus accuracy by method]({name}.png)" for name in figures]
    write_text(folder / "summary.md", "\n\n".join([*parts, *(grid.markdown() for grid in grids)]) + "\n")
    write_text(folder / "index.html", _page(folder, title, grids, figures, shown, encoder, notes))
    return grids[0]


def _context(answers: Sequence[MethodAnswer]) -> Context:
    predictions = [a.prediction for a in answers]
    titles = split_titles(dict.fromkeys(p.split for p in predictions), predictions)
    return Context(reference_lines(predictions), titles, bool(repeated_splits(predictions)))


def _grids(answers: Sequence[MethodAnswer], text: TaskText, task: str, reference: str, context: Context) -> list[Grid]:
    kinds, types = by_kind(answers), by_type(answers)
    paraphrase_sets = sorted({key[1] for key in kinds}, key=("heldout", "far", "train").index)
    grids = [kinds_grid(kinds, paraphrases, context) for paraphrases in paraphrase_sets]
    paper = paper_rows(task)
    if paper:
        grids.append(paper_grid(paper, types, paraphrase_sets[0]))
    comparisons = compare(answers, reference)
    if comparisons:
        grids.append(comparison_grid(comparisons, reference))
    return [
        *grids,
        measures_grid(measures(answers)),
        paraphrases_grid(by_paraphrase(answers), text, answers[0].prediction.feature),
        *(types_grid(types, paraphrases, context) for paraphrases in paraphrase_sets),
    ]


def _figures(answers: Sequence[MethodAnswer]) -> dict[str, Figure]:
    """A radar of each method as in the paper's Figure 3, held-out paraphrases where asked: seen, and unseen values."""
    types = by_type(answers)
    paraphrases = main_set(key[1] for key in types)
    repeated = repeated_splits(a.prediction for a in answers)
    figures: dict[str, Figure] = {}
    for name, shifted in (("radar", False), ("radar_shifted", True)):
        panels: dict[str, tuple[dict, dict]] = {}
        for (method, at, split, focus), e in types.items():
            if at == paraphrases and is_shifted(split) == shifted and split not in repeated:
                lines, intervals = panels.setdefault(method, ({}, {}))
                lines.setdefault(split, {})[focus] = e.mean
                intervals.setdefault(split, {})[focus] = (e.ci_low, e.ci_high)
        if panels:
            shown = [Panel(METHOD_NAMES.get(m, m), *panel) for m, panel in panels.items()]
            figures[name] = Figure(shown, min(COLUMNS, len(shown)))
    return figures


def _across_models(models: ByModel, context: Context) -> tuple[list[Grid], dict[str, Figure]]:
    """Tables and radars of methods x models, held-out paraphrases where asked."""
    paraphrases = main_set(row["paraphrases"] for rows in models.values() for row in rows)
    figures = {}
    for name, shifted in (("radar_models", False), ("radar_models_shifted", True)):
        panels, columns = model_panels(models, paraphrases, shifted)
        if panels:
            figures[name] = Figure(panels, columns)
    return [models_grid(models, paraphrases, context)], figures


def _page(
    folder: Path,
    title: str,
    grids: Sequence[Grid],
    figures: Mapping[str, Figure],
    shown: Mapping[str, Evaluation],
    encoder: PromptEncoder,
    notes: Sequence[str],
) -> str:
    svgs = "".join(html.inline_svg((folder / f"{name}.svg").read_text(encoding="utf-8")) for name in figures)
    examples: list[dict[str, Any]] = []
    cap = ""
    for method, evaluation in shown.items():
        found, cap = html.choose_examples(
            evaluation.queries,
            evaluation.predictions,
            lambda q: encoder.render(q.example, q.instruction),
            in_all=html.EXAMPLES_IN_ALL // len(shown),
        )
        examples += [{"method": METHOD_NAMES.get(method, method), **example} for example in found]
    cap = f"One seed of each method. Of each: {cap}"
    tables = "".join(_table(grid) for grid in grids)
    return html.page(title, "; ".join(note.rstrip(".") for note in notes), svgs, tables, cap, examples)


def _table(grid: Grid) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in grid.header)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in grid.rows)
    caption = f'<p class="soft">{escape(grid.caption)}</p>'
    table = f'<section class="card"><table><tr>{head}</tr>{body}</table></section>'
    return f"<h2>{escape(grid.title)}</h2>{caption}{table}"
