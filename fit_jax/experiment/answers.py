"""The answers of an experiment's cells, read back and put together into its report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Evaluation, evaluated_splits
from fit_jax.evaluation.queries import Query, ask
from fit_jax.evaluation.report import FOLDER, print_table, read_predictions
from fit_jax.experiment.cells import BUDGET, Budget, Cell, cell_config, choice_of, read_budget
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.method_tables import METHOD_NAMES
from fit_jax.experiment.other_models import models_beside, shown_name
from fit_jax.foreign import named
from fit_jax.runs.run import set_up
from fit_jax.training.metrics import FIGURE

Key = tuple[str, str, str, str, str, int]  # split, uid, focus type, feature, paraphrase set and paraphrase


def answers_of(config: ExperimentConfig, cell: Cell) -> Path:
    """The file of a cell's answers; where it is there, the cell is done."""
    return Path(config.run_dir) / "cells" / cell.name / "predictions.jsonl"


def report_cells(config: ExperimentConfig, cells: Sequence[Cell]) -> None:
    """Writes and prints the report of an experiment whose cells are done; for the lead process alone.

    Raises:
        InputError: A cell's answers are damaged or missing.
    """
    folder = Path(config.run_dir)
    run = set_up(cell_config(config, Cell(config.reference, config.seeds[0])), trust_code=True)
    found: dict[tuple[str, int], Evaluation] = {}
    for seed in config.seeds:
        is_same = config.run.task.seed is not None or seed == run.config.seed
        task = run.task if is_same else build_task(config.run.task, seed)
        queries = questions_of(task, replace(config.run, seed=seed))
        for method in config.methods:
            found[method, seed] = _answers(answers_of(config, Cell(method, seed)), queries)
    predictions = {key: evaluation.predictions for key, evaluation in found.items()}
    shown = {method: found[method, run.config.seed] for method in config.methods}
    count = len(next(iter(predictions.values())))
    notes = [f"{len(config.seeds)} seed(s); {count:,} answers of each method and seed{_held(config.run)}."]
    notes += _budgets(folder, cells)
    for cell in cells:
        path = folder / "cells" / cell.name / "note.txt"
        if path.exists() and (note := path.read_text(encoding="utf-8")):
            notes.append(f"{cell.method}, seed {cell.seed}: {note}")
    main = write_experiment_report(
        folder / FOLDER,
        run.task.text.name,
        predictions,
        shown,
        run.encoder,
        config.reference,
        notes,
        shown_name(config),
        models_beside(config),
        config.varied,
    )
    print_table(main.terminal())
    print(f"report: {folder / FOLDER / 'index.html'}", flush=True)


def _held(run: Config) -> str:
    """What is alike in all seeds: the data, the questions, or nothing."""
    fixed = {"data": run.task.seed, "paraphrases asked": run.evaluation.seed}
    return "".join(f"; the same {what} in all, those of seed {n}" for what, n in fixed.items() if n is not None)


def _budgets(folder: Path, cells: Sequence[Cell]) -> list[str]:
    """A line on what each method was trained with, means over its seeds; none where nothing is known."""
    spent: dict[str, list[Budget]] = {}
    for cell in cells:
        path = folder / "cells" / cell.name / BUDGET
        if path.exists():
            spent.setdefault(cell.method, []).append(read_budget(path))
    lines = []
    for method, rows in spent.items():
        counts = [(row.updates, row.examples, row.epochs, row.answers, row.evaluated_step) for row in rows]
        mean = np.mean(counts, axis=0).tolist()
        line = "{:,.0f} updates on {:,.0f} examples ({:.1f} epochs) with {:,.0f} answers; step {:.0f}".format(*mean)
        line += f" evaluated, {choice_of(rows)}"
        for name in rows[0].figures:
            line += f"; {name.removeprefix(FIGURE)} {np.mean([row.figures[name] for row in rows]):.3f}"
        lines.append(f"{METHOD_NAMES.get(method, method)}, mean over seeds: {line}.")
    return lines


def questions_of(task: Task, config: Config) -> dict[Key, Query]:
    """What every method with the config's seeds is asked, by what tells one question from another."""
    asked, seed = config.evaluation, config.evaluation_seed
    return {
        (q.split, q.example.uid, q.focus, q.feature, q.paraphrases, q.paraphrase): q
        for name in evaluated_splits(task, config)
        for example in task.splits[name].examples[: asked.examples]
        for q in ask(task.text, name, example, asked.paraphrases, seed, asked.paraphrases_each).queries
    }


def _answers(path: Path, queries: dict[Key, Query]) -> Evaluation:
    """A cell's answers and their questions.

    Raises:
        InputError: The file is damaged, or lacks answers.
    """
    by_key = {(p.split, p.uid, p.focus, p.feature, p.paraphrases, p.paraphrase): p for p in read_predictions(path)}
    wrong = by_key.keys() ^ queries.keys() or [
        key for key, q in queries.items() if len(by_key[key].log_probs) != len(q.example.candidates)
    ]
    if wrong:
        raise InputError(
            f"{named(path)}: is damaged: {len(wrong)} of its answers are missing, incomplete or to no question; move "
            "it away, and they are made again"
        )
    return Evaluation(list(queries.values()), [by_key[key] for key in queries])
