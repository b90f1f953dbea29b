"""The `report/` folder of a run: rows, predictions, tables, pictures and the page; each file whole or not at all."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fit_jax.data.tasks import Task
from fit_jax.evaluation import html, tables
from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.metrics import Cell, focus_accuracy, is_shifted, pooled
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.radar import Panel, draw_radars
from fit_jax.files import make_folder, replace_with, write_text
from fit_jax.focus.prompts import PromptEncoder


def write_report(
    folder: Path, evaluation: Evaluation, task: Task, encoder: PromptEncoder, method: str, seed: int
) -> list[dict[str, Any]]:
    """Writes `report/` of one run.

    Args:
        folder: The report's folder; files of an earlier report in it are replaced.
        evaluation: What was asked and answered.
        task: The task asked about.
        encoder: Renders the prompts that the page shows.
        method: The run's method, as named in the rows.
        seed: The run's seed.

    Returns:
        The rows of `focus_accuracy.jsonl`.
    """
    predictions = evaluation.predictions
    title = f"Focus report: {method} on {task.text.name}, seed {seed}"
    rows = focus_accuracy(predictions, method, seed, task.text.name)
    make_folder(folder)
    write_lines(folder / "focus_accuracy.jsonl", rows)
    write_lines(folder / "predictions.jsonl", (dataclasses.asdict(p) for p in predictions))
    write_text(folder / "summary.md", tables.summary(title, predictions, task.splits, task.notes))
    panels, columns = radar_panels(predictions)
    for suffix in ("svg", "png"):
        replace_with(folder / f"radar.{suffix}", lambda path: draw_radars(panels, columns, path))
    examples, cap = html.choose_examples(
        evaluation.queries, predictions, lambda q: encoder.render(q.example, q.instruction)
    )
    subtitle = f"{len(predictions)} answers; 95 % Wilson intervals in brackets."
    accuracy = html.accuracy_tables(predictions, tables.POOL_NAMES)
    svg = html.inline_svg((folder / "radar.svg").read_text(encoding="utf-8"))
    write_text(folder / "index.html", html.page(title, subtitle, svg, accuracy, cap, examples))
    return rows


def radar_panels(predictions: Sequence[Prediction]) -> tuple[list[Panel], int]:
    """One radar for each wording pool and kind of split (standard, shifted), and the columns of their grid."""
    cells = pooled(predictions)
    pools = list(dict.fromkeys(key[0] for key in cells))
    panels = []
    for shifted in (False, True):
        for pool in pools:
            kept = {key: c for key, c in cells.items() if key[0] == pool and is_shifted(key[1]) == shifted}
            if kept:
                kind = "values unseen in training\n" if shifted else ""
                panels.append(_panel(kind + tables.POOL_NAMES[pool], kept))
    return panels, len(pools)


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a `predictions.jsonl`."""
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [Prediction(**{**r, "log_probs": tuple(r["log_probs"])}) for r in records]


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines."""
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def _panel(title: str, cells: Mapping[tuple[str, str, str], Cell]) -> Panel:
    lines: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for (_, split, focus), cell in cells.items():
        lines.setdefault(split, {})[focus] = cell.accuracy
        intervals.setdefault(split, {})[focus] = (cell.ci_low, cell.ci_high)
    return Panel(title, lines, intervals)
