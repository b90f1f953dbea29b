"""Runs an experiment cell by cell; a cell is one method and seed, and is done once."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from fit_jax.config import Config
from fit_jax.config_files import config_differences, dump_config, read_config
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Evaluation, evaluated_splits, is_written
from fit_jax.evaluation.queries import Query, ask
from fit_jax.evaluation.report import FOLDER, print_table, read_predictions, write_predictions
from fit_jax.experiment.cells import BUDGET, Budget, Cell, cell_config, do_cell
from fit_jax.experiment.config import ExperimentConfig, check_experiment
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.method_tables import METHOD_NAMES
from fit_jax.experiment.other_models import CONFIG, model_name, models_beside
from fit_jax.files import write_text
from fit_jax.methods import TRAINED, TRAINING_FREE, training_free_method
from fit_jax.parallel.processes import is_lead
from fit_jax.runs.remote_folder import working_folder
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import FIRST_STAGE, locked
from fit_jax.runs.trainer import budget_of
from fit_jax.training.loop import TrainingFailed
from fit_jax.training.metrics import FIGURE

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
STEPS = "steps.json"  # the updates of every cell and the examples of each update, where the config leaves them open

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
    with working_folder(config.run_dir, "run_dir") as folder:
        config = replace(config, run_dir=str(folder))
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
    """The experiment with one budget for every cell that trains: updates, and examples of each update.

    Rows hold different numbers of examples with different methods. So where the config leaves the examples open they
    are what fills the rows of the reference, or of the first method that trains, with room for what varies; and where
    it counts in epochs, that method's count. What the first start found stays.
    """
    train = config.run.train
    if train.steps is not None and (train.examples_per_step is not None or not train.packing):
        return config
    path = folder / STEPS
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    else:
        method = next((name for name in (config.reference, *config.methods) if name in TRAINED), "sft_y")
        found = budget_of(set_up(cell_config(config, Cell(method, config.seeds[0]))))._asdict()
        if is_lead():
            write_text(path, json.dumps(found) + "\n")
    return replace(config, run=replace(config.run, train=replace(train, **found)))


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
    """A line on what each method was trained with, means over its seeds; none where nothing is known."""
    spent: dict[str, list[Budget]] = {}
    for cell in cells:
        path = folder / "cells" / cell.name / BUDGET
        if path.exists():
            spent.setdefault(cell.method, []).append(Budget(**json.loads(path.read_text(encoding="utf-8"))))
    lines = []
    for method, rows in spent.items():
        counts = [(row.updates, row.examples, row.epochs, row.answers, row.evaluated_step) for row in rows]
        mean = np.mean(counts, axis=0).tolist()
        line = "{:,.0f} updates on {:,.0f} examples ({:.1f} epochs) with {:,.0f} answers; step {:.0f}".format(*mean)
        line += f" evaluated, the best by validation {rows[0].rule}"
        for name in rows[0].figures:
            line += f"; {name.removeprefix(FIGURE)} {np.mean([row.figures[name] for row in rows]):.3f}"
        lines.append(f"{METHOD_NAMES.get(method, method)}, mean over seeds: {line}.")
    return lines


def _say_budget(path: Path) -> None:
    if path.exists():
        spent = Budget(**json.loads(path.read_text(encoding="utf-8")))
        _say(
            f"{spent.updates:,} updates on {spent.examples:,} examples; evaluated: the checkpoint of step "
            f"{spent.evaluated_step}, the best by validation {spent.rule}"
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
    kept = ("predictions.jsonl", "checkpoints/*[0-9]", f"{FIRST_STAGE}/checkpoints/*[0-9]")
    begun = any(any(cells.glob(f"*/{name}")) for name in kept)
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
