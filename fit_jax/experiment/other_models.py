"""Experiments with other models or variants beside this one: the paper's radars, methods x models (its Figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fit_jax.config import Config
from fit_jax.config_files import read_config
from fit_jax.errors import InputError
from fit_jax.evaluation.metrics import group_by, is_shifted, kind_of
from fit_jax.evaluation.radar import Panel
from fit_jax.evaluation.reference_lines import speaks_of
from fit_jax.evaluation.report import FOLDER
from fit_jax.evaluation.result_tables import PARAPHRASE_NAMES
from fit_jax.experiment.analysis import KINDS
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.experiment.method_tables import METHOD_NAMES, Context
from fit_jax.foreign import named, read_records
from fit_jax.tables import Table, share

CONFIG = "experiment.yaml"  # what the folder of an experiment holds

# Fields of the rows that figures are made of.
SHOWN = ("method", "paraphrases", "split", "focus", "correct", "count", "seed")

# Rows of `focus_accuracy.jsonl`, by model or variant.
ByModel = Mapping[str, Sequence[Mapping[str, Any]]]


def model_name(run: Config) -> str:
    """What figures call the model of a run."""
    if run.model.pretrained is not None:
        return Path(run.model.pretrained).name
    return f"{run.model.layers} layers, width {run.model.width}"


def shown_name(config: ExperimentConfig) -> str:
    """What tables and figures call an experiment among those beside it: its variant, or its model."""
    return Path(config.run_dir).name if config.varied else model_name(config.run)


def models_beside(config: ExperimentConfig) -> dict[str, list[dict[str, Any]]]:
    """The rows of the finished experiments that stand beside this one, by model or variant.

    Raises:
        InputError: A folder holds no finished experiment, or one of another task or of a model that is shown already.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in map(Path, config.beside):
        rows = folder / FOLDER / "focus_accuracy.jsonl"
        if not rows.is_file() or not (folder / CONFIG).is_file():
            raise InputError(f"beside: {named(folder)} holds no finished experiment; finish it first, or leave it out")
        other = replace(read_config(ExperimentConfig, folder / CONFIG), run_dir=str(folder))
        name, task = shown_name(other), config.run.task.name
        if other.run.task.name != task:
            raise InputError(
                f"beside: {named(folder)} is about task {other.run.task.name}, this experiment about {task}"
            )
        if name in {shown_name(config), *found}:
            raise InputError(f"beside: {named(folder)} is of {name}, which is shown already; name each model once")
        found[name] = _read_rows(rows)
    return found


def _read_rows(path: Path) -> list[dict[str, Any]]:
    remedy = "report that experiment again, or leave it out of `beside`"
    rows = read_records(path, remedy)
    if missing := [name for row in rows for name in SHOWN if name not in row]:
        raise InputError(f"{named(path)}: a row without {missing[0]!r}; {remedy}")
    return rows


def model_panels(models: ByModel, paraphrases: str, shifted: bool) -> tuple[list[Panel | None], int]:
    """A radar for each model (row) and method (column), None where a model lacks a method; and the columns."""
    methods = _methods(models)
    panels: list[Panel | None] = []
    for model, rows in models.items():
        for method in methods:
            lines: dict[str, dict[str, float]] = {}
            for (split, focus), accuracy in _shares(rows, method, paraphrases, "focus").items():
                if is_shifted(split) == shifted:
                    lines.setdefault(split, {})[focus] = accuracy
            panels.append(Panel(f"{METHOD_NAMES.get(method, method)}\n{model}", lines) if lines else None)
    return (panels if any(panels) else []), len(methods)


def models_table(models: ByModel, paraphrases: str, context: Context, varied: str = "") -> Table:
    """(Model or variant, method) x (kind of type, split)."""
    splits = list(dict.fromkeys(row["split"] for rows in models.values() for row in rows))
    lines = []
    for model, rows in models.items():
        kinds = [{**row, "kind": kind_of(row["focus"])} for row in rows]
        for method in _methods(models):
            shares = _shares(kinds, method, paraphrases, "kind")
            if shares:
                cells = (share(shares.get((split, kind))) for kind in KINDS for split in splits)
                lines.append((model, METHOD_NAMES.get(method, method), *cells))
    for line, rates in context.references.items():
        cells = (rates.get(split) if speaks_of(line, kind) else None for kind in KINDS for split in splits)
        lines.append((line, "", *map(share, cells)))
    what = varied or "model"
    header = (what, "method", *(f"{kind} {context.titles.get(s, s)}" for kind in KINDS for s in splits))
    caption = (
        f"Focus accuracy by {what} and kind of focus type, {PARAPHRASE_NAMES[paraphrases]}: mean over seeds. The last "
        f"rows are what answers without reading reach.{context.caption}"
    )
    aside = len(context.references)
    return Table(
        "Methods and variants" if varied else "Methods and models",
        caption,
        header,
        tuple(lines),
        texts=2,
        aside=aside,
        name=f"{'variants' if varied else 'models'}_{paraphrases}",
    )


def _methods(models: ByModel) -> list[str]:
    return list(dict.fromkeys(row["method"] for rows in models.values() for row in rows))


def _shares(rows: Sequence[Mapping[str, Any]], method: str, paraphrases: str, by: str) -> dict[tuple[str, str], float]:
    """Focus accuracy over all seeds and features, by (split, the field `by`)."""
    asked = (row for row in rows if row["method"] == method and row["paraphrases"] == paraphrases)
    cells = group_by(asked, lambda row: (row["split"], row[by]))
    return {key: sum(r["correct"] for r in cell) / sum(r["count"] for r in cell) for key, cell in cells.items()}
