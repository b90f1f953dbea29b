"""Runs an experiment cell by cell; a cell is one method and seed, and is done once."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from fit_jax.config_files import dump_config, read_config
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError, RunFailed
from fit_jax.evaluation.evaluator import Evaluation, is_written
from fit_jax.evaluation.report import FOLDER, write_predictions
from fit_jax.experiment.answers import answers_of, report_cells
from fit_jax.experiment.cells import BUDGET, Cell, cell_config, check_unchanged, choice_of, do_cell, read_budget
from fit_jax.experiment.config import ExperimentConfig, check_experiment, parts_of
from fit_jax.experiment.other_models import CONFIG, models_beside
from fit_jax.files import asked_name, is_url, make_folder, write_text
from fit_jax.foreign import read_object
from fit_jax.methods import training_free_method, trains
from fit_jax.parallel.processes import as_lead_finds, is_lead, on_lead
from fit_jax.runs.remote_folder import working_folder
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import FIRST_STAGE, InUse, check_same, held, locked
from fit_jax.runs.trainer import FixedBudget, budget_of

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
    "shared",
)
# Seconds between looks at what other processes are at.
_WAIT = 5.0
STEPS = "steps.json"  # the updates of every cell and the examples of each update, where the config leaves them open
_MOST = 2**40  # of each of them
_REMEDY = "put it back from a copy, or choose another run_dir"

DoCell = Callable[[ExperimentConfig, Cell], tuple[Evaluation, str]]


def run_experiment(config: ExperimentConfig, do: DoCell = do_cell) -> Path:
    """Does the cells that are missing and writes the report of all; returns the (last) report's folder.

    Behind a URL that is the folder's place in a working copy, which is gone by then.

    Args:
        config: The experiment.
        do: Does a cell: its answers, and what a reader must know of it.

    Raises:
        InputError: A wrong field, or a folder that holds another experiment.
        RunFailed: A training diverged, or a checkpoint was not saved; the finished cells stay, and so does that
            cell's last checkpoint.
    """
    check_experiment(config)
    # What is wrong here is to be reported now, not after the last cell.
    models_beside(config)
    if config.shared and is_url(config.run_dir):
        raise InputError(f"shared: processes share a folder, and {config.run_dir[:80]} is a URL; mount the storage")
    with working_folder(config.run_dir, "run_dir") as folder:
        return _run(replace(config, run_dir=str(folder)), do)


def _run(config: ExperimentConfig, do: DoCell) -> Path:
    parts = parts_of(config)
    for part in parts:
        _check_steered(part)
    if config.shared:
        share(parts, do)
    for part in parts:
        with _mine(part):
            done = _with_steps(part)
            _check_inputs(done)
            for number, cell in enumerate(cells_of(done), start=1):
                if not as_lead_finds(partial(is_done, done, cell)):
                    _say(f"cell {number} of {len(cells_of(done))}: {cell.method}, seed {cell.seed}")
                    _do(done, cell, do)
            if not (config.shared and _is_reported(done)):
                on_lead(partial(report_cells, done, cells_of(done)))
    return Path(parts[-1].run_dir) / FOLDER


def share(parts: list[ExperimentConfig], do: DoCell) -> None:
    """Does the cells that no other process is at work on, until all are done.

    A cell is taken by the lock of a folder in `claims/`. The system lets it go when its process ends, on whatever
    machine, and another process takes the cell, which goes on from its last checkpoint.

    Args:
        parts: The experiments.
        do: Does a cell.

    Raises:
        InputError: As `run_experiment`, or this is one process of a job of several.
        RunFailed: As `run_experiment`.
    """
    if jax.process_count() > 1:
        raise InputError("shared: each process does cells of its own; start it without mesh.processes")
    settled = []
    for part in parts:
        with _mine(part):
            settled.append(_with_steps(part))
            _check_inputs(settled[-1])
    while left := [(part, cell) for part in settled for cell in cells_of(part) if not is_done(part, cell)]:
        busy = True
        for part, cell in left:
            claim = Path(part.run_dir) / "claims" / cell.name
            make_folder(claim)
            try:
                with held(claim):
                    if not is_done(part, cell):
                        _say(f"{Path(part.run_dir).name}: {cell.method}, seed {cell.seed}, by process {os.getpid()}")
                        _do(part, cell, do)
                        busy = False
            except InUse:  # or the model that it steers is still being trained
                continue
        if busy:
            time.sleep(_WAIT)


@contextmanager
def _mine(config: ExperimentConfig) -> Iterator[None]:
    """Keeps other processes out of an experiment's folder; where it is shared, waits until they are."""
    folder = Path(config.run_dir)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder, lambda: _adopt(folder, config)))
                break
            except InUse:
                if not config.shared:
                    raise
                time.sleep(_WAIT)
        yield


def cells_of(config: ExperimentConfig) -> list[Cell]:
    """Every method with every seed."""
    return [Cell(method, seed) for seed in config.seeds for method in config.methods]


def is_done(config: ExperimentConfig, cell: Cell) -> bool:
    """Whether the cell's answers are there."""
    return answers_of(config, cell).exists()


def _is_reported(config: ExperimentConfig) -> bool:
    """Whether the report is younger than all answers."""
    page = Path(config.run_dir) / FOLDER / "index.html"
    return page.exists() and all(
        answers_of(config, cell).stat().st_mtime_ns <= page.stat().st_mtime_ns for cell in cells_of(config)
    )


def _do(config: ExperimentConfig, cell: Cell, do: DoCell) -> None:
    path = answers_of(config, cell)
    try:
        evaluation, note = do(config, cell)
    except InUse:
        raise
    except (InputError, RunFailed) as error:
        error.args = (f"{cell.method}, seed {cell.seed}: {error}",)
        raise

    def keep() -> None:
        write_text(path.with_name("note.txt"), note)
        write_predictions(path, evaluation.predictions)
        _say_budget(path.with_name(BUDGET))

    on_lead(keep)
    jax.clear_caches()  # the programs of a finished cell


def _check_steered(config: ExperimentConfig) -> None:
    names = [name for name in config.methods if not trains(name) and training_free_method(name).steers]
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


def _with_steps(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with one budget for every cell that trains: updates, and examples of each update.

    Rows hold different numbers of examples with different methods. So where the config leaves the examples open they
    are what fills the rows of the reference, or of the first method that trains, with room for what varies; and where
    it counts in epochs, that method's count. What the first start found stays.
    """
    train = config.run.train
    if train.steps is not None and (train.examples_per_step is not None or not train.packing):
        return config
    path = Path(config.run_dir) / STEPS
    if path.exists():
        fields = read_object(path, _REMEDY)
        each = fields.whole("examples_per_step", 1, _MOST) if fields.has("examples_per_step") else None
        found = FixedBudget(fields.whole("steps", 1, _MOST), each)
    else:
        method = next((name for name in (config.reference, *config.methods) if trains(name)), "sft_y")
        found = budget_of(set_up(cell_config(config, Cell(method, config.seeds[0])), trust_code=True))
    on_lead(lambda: path.exists() or write_text(path, json.dumps(found._asdict()) + "\n"))
    return replace(config, run=replace(config.run, train=replace(train, **found._asdict())))


def _check_inputs(config: ExperimentConfig) -> None:
    """Where some cells are done and some are not: checks that the others would be made from the same data and model."""
    cells = cells_of(config)
    done = [cell for cell in cells if as_lead_finds(partial(is_done, config, cell))]
    if done and len(done) < len(cells):
        check_unchanged(config, done[0])  # in all processes, which are to use one commit of what is on the hub


def _say_budget(path: Path) -> None:
    if path.exists():
        spent = read_budget(path)
        _say(
            f"{spent.updates:,} updates on {spent.examples:,} examples; evaluated: the checkpoint of step "
            f"{spent.evaluated_step}, {choice_of([spent])}"
        )


def _adopt(folder: Path, config: ExperimentConfig) -> None:
    """Writes the config into a new experiment's folder; compares it with that of an old one that has begun."""
    path, cells = folder / CONFIG, folder / "cells"
    kept = ("predictions.jsonl", "checkpoints/*[0-9]", f"{FIRST_STAGE}/checkpoints/*[0-9]")
    begun = any(any(cells.glob(f"*/{name}")) for name in kept)
    saved = read_config(ExperimentConfig, path) if path.exists() else config
    same = check_same(folder, saved, config, MAY_DIFFER, begun)
    if not begun:
        if not same:  # tokenizers and steps of a config that never began; no other config may take them up
            for tokenizer in cells.glob("*/tokenizer"):
                shutil.rmtree(tokenizer)
            (folder / STEPS).unlink(missing_ok=True)
        write_text(path, dump_config(replace(config, run_dir=asked_name(config.run_dir))))


def _say(line: str) -> None:
    if is_lead():
        print(line, flush=True)
