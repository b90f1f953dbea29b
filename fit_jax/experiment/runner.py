"""Runs an experiment cell by cell; a cell is one method and seed, and is done once."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax

from fit_jax.config import Config
from fit_jax.config_files import config_differences, dump_config, read_config
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Evaluation, evaluated_splits, is_written
from fit_jax.evaluation.queries import Query, ask
from fit_jax.evaluation.report import FOLDER, print_table, read_predictions, write_predictions
from fit_jax.experiment.cells import BUDGET, Cell, cell_config, do_cell
from fit_jax.experiment.config import ExperimentConfig, check_experiment
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.method_tables import METHOD_NAMES
from fit_jax.experiment.other_models import CONFIG, model_name, models_beside
from fit_jax.files import write_text
from fit_jax.methods import TRAINED, TRAINING_FREE, training_free_method
from fit_jax.parallel.processes import is_lead
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import locked
from fit_jax.runs.trainer import steps_of
from fit_jax.training.loop import TrainingFailed

# Fields in which an experiment may differ from what its folder holds: more methods and seeds, and what is shown.
MAY_DIFFER = (
    "run_dir",
    "methods",
    "seeds",
    "reference",
    "beside",
    "run.run_dir",
    "run.seed",
    "run.train.method",
    "run.mesh",
)
STEPS = "steps.json"  # the optimizer steps of every cell, where the config counts in epochs

DoCell = Callable[[ExperimentConfig, Cell], tuple[Evaluation, str]]
Key = tuple[str, str, str, str, str, int]  # split, uid, focus type, feature, paraphrase set and paraphrase


def run_experiment(config: ExperimentConfig, do: DoCell = do_cell) -> Path:
    """Does the cells that are missing and writes the report of all; returns the report's folder.

    Args:
        config: The experiment.
        do: Does a cell: its answers, and what a reader must know of it.

    Raises:
        InputError: A wrong field, or a folder that holds another experiment.
        TrainingFailed: A training diverged; the finished cells stay, and so does that cell's last checkpoint.
    """
    check_experiment(config)
    # What is wrong here is to be told now, not after the last cell.
    models_beside(config)
    _check_steered(config)
    folder = Path(config.run_dir)
    with locked(folder, lambda: _adopt(folder, config)):
        return _run(config, folder, do)


def _run(config: ExperimentConfig, folder: Path, do: DoCell) -> Path:
    config = _with_steps(config, folder)
    cells = [Cell(method, seed) for seed in config.seeds for method in config.methods]
    for number, cell in enumerate(cells, start=1):
        path = folder / "cells" / cell.name / "predictions.jsonl"
        if not path.exists():
            _say(f"cell {number} of {len(cells)}: {cell.method}, seed {cell.seed}")
            try:
                evaluation, note = do(config, cell)
            except (InputError, TrainingFailed) as error:
                raise type(error)(f"{cell.method}, seed {cell.seed}: {error}") from error
            if is_lead():
                write_text(path.with_name("note.txt"), note)
                write_predictions(path, evaluation.predictions)
                _say_budget(path.with_name(BUDGET))
        jax.clear_caches()  # the programs of a finished cell
    _report(config, folder, cells)
    return folder / FOLDER


def _check_steered(config: ExperimentConfig) -> None:
    names = [name for name in config.methods if name in TRAINING_FREE and training_free_method(name).steers]
    steered = " and ".join(names)
    if steered and config.run.evaluation.beams is not None:
        raise InputError(f"methods: {steered} can only be scored; leave them out, or set run.evaluation.beams to null")
    if not steered or config.run.evaluation.written is False:
        return
    task = build_task(config.run.task, config.seeds[0])
    if is_written(task, config.run):
        raise InputError(
            f"methods: {steered} can only choose among given answers, but those to task {task.text.name} are to be "
            "written; leave them out, or set run.evaluation.written to false"
        )


def _with_steps(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The experiment with its number of optimizer steps, the same for every cell that trains.

    Epochs of different methods take different numbers of steps, since their rows hold different numbers of examples. So
    the reference's epochs count, or those of the first method that trains; what the first start found stays.
    """
    if config.run.train.steps is not None:
        return config
    path = folder / STEPS
    if path.exists():
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
    else:
        method = next((name for name in (config.reference, *config.methods) if name in TRAINED), "sft_y")
        reference = cell_config(config, Cell(method, config.seeds[0]))
        steps = steps_of(set_up(reference))
        if is_lead():
            write_text(path, json.dumps({"steps": steps}) + "\n")
    return replace(config, run=replace(config.run, train=replace(config.run.train, steps=steps)))


def _report(config: ExperimentConfig, folder: Path, cells: list[Cell]) -> None:
    if not is_lead():
        return
    run = set_up(cell_config(config, Cell(config.reference, config.seeds[0])))
    found: dict[tuple[str, int], Evaluation] = {}
    for seed in config.seeds:
        task = run.task if seed == run.config.seed else build_task(config.run.task, seed)
        queries = _questions(task, replace(config.run, seed=seed))
        for method in config.methods:
            found[method, seed] = _answers(folder / "cells" / Cell(method, seed).name / "predictions.jsonl", queries)
    predictions = {key: evaluation.predictions for key, evaluation in found.items()}
    shown = {method: found[method, run.config.seed] for method in config.methods}
    notes = [f"{len(config.seeds)} seed(s); {len(next(iter(predictions.values()))):,} answers of each method and seed."]
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
        model_name(config.run),
        models_beside(config),
    )
    print_table(main.terminal())
    _say(f"report: {folder / FOLDER / 'index.html'}")


def _budgets(folder: Path, cells: list[Cell]) -> list[str]:
    """One line on what each method was trained with, the mean over its seeds; none where nothing is known."""
    spent: dict[str, list[dict[str, int]]] = {}
    for cell in cells:
        path = folder / "cells" / cell.name / BUDGET
        if path.exists():
            spent.setdefault(cell.method, []).append(json.loads(path.read_text(encoding="utf-8")))
    parts = [
        f"{METHOD_NAMES.get(method, method)} {_mean(rows, 'updates'):,.0f} on {_mean(rows, 'examples'):,.0f}"
        for method, rows in spent.items()
    ]
    return [f"Updates and the examples they saw, each seed: {', '.join(parts)}."] if parts else []


def _mean(rows: list[dict[str, int]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def _say_budget(path: Path) -> None:
    if path.exists():
        spent = json.loads(path.read_text(encoding="utf-8"))
        _say(
            f"{spent['updates']:,} updates on {spent['examples']:,} examples; "
            f"evaluated: the checkpoint of step {spent['evaluated_step']}"
        )


def _questions(task: Task, config: Config) -> dict[Key, Query]:
    """What every method with the config's seed is asked, by what tells one question from another."""
    asked = config.evaluation
    return {
        (q.split, q.example.uid, q.focus, q.feature, q.paraphrases, q.paraphrase): q
        for name in evaluated_splits(task, config)
        for example in task.splits[name].examples[: asked.examples]
        for q in ask(task.text, name, example, asked.paraphrases, config.seed, asked.paraphrases_each).queries
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
            f"{path}: is damaged: {len(wrong)} of its answers are missing, incomplete or to no question; delete it, "
            "and they are made anew"
        )
    return Evaluation(list(queries.values()), [by_key[key] for key in queries])


def _adopt(folder: Path, config: ExperimentConfig) -> None:
    """Writes the config into a new experiment's folder; compares it with that of an old one that has begun."""
    path, cells = folder / CONFIG, folder / "cells"
    begun = any(any(cells.glob(f"*/{kept}")) for kept in ("predictions.jsonl", "checkpoints/*[0-9]"))
    rows = config_differences(read_config(ExperimentConfig, path), config, MAY_DIFFER) if path.exists() else []
    if rows and begun:
        raise InputError(
            f"{folder}: holds another experiment ({'; '.join(rows)}); choose another run_dir, or give the same "
            "values to go on with it"
        )
    if not begun:
        if rows:  # tokenizers and steps of a config that never began; no other config may take them up
            for tokenizer in cells.glob("*/tokenizer"):
                shutil.rmtree(tokenizer)
            (folder / STEPS).unlink(missing_ok=True)
        write_text(path, dump_config(config))


def _say(line: str) -> None:
    if is_lead():
        print(line, flush=True)
