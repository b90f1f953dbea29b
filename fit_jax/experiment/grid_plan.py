"""Hours and cost of an experiment on a named machine, before anything starts."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.experiment.answers import questions_of
from fit_jax.experiment.cells import Cell, cell_config
from fit_jax.experiment.config import ExperimentConfig, check_experiment, parts_of
from fit_jax.experiment.other_models import shown_name
from fit_jax.experiment.runner import STEPS, cells_of, is_done
from fit_jax.methods import trains
from fit_jax.parallel.topology import Topology
from fit_jax.planning.plan import Outline, outline
from fit_jax.terminal import PipedConsole
from fit_jax.training.loop import Events
from fit_jax.units import size

CAVEATS = (
    "by shapes alone: `python -m fit_jax.plan` compiles one training and is exact about memory",
    "each question is scored as a row of its own, as long as a training row; few-shot prompts may be longer",
    "validations count as many questions as FIT is asked; a method without instructions is asked fewer",
    "loading weights, compiling, written answers and the choice of a steering strength are left out",
)


class PlannedCells(NamedTuple):
    """The cells of one method and model.

    Attributes:
        model: Name of the model.
        method: Name of the method.
        left: Cells that are not done.
        done: Cells that are.
        training: Hours of training one cell, with its validations; 0 for a method that trains nothing.
        evaluation: Hours of evaluating one cell.
        bytes: Bytes a device that training takes.
    """

    model: str
    method: str
    left: int
    done: int
    training: float
    evaluation: float
    bytes: float

    @property
    def hours(self) -> float:
        """Hours of the cells that are left, one after another on one machine."""
        return self.left * (self.training + self.evaluation)


def plan_grid(config: ExperimentConfig, topology: Topology) -> list[PlannedCells]:
    """What each method and model of an experiment takes on one machine; builds the task, to count it, and nothing else.

    Raises:
        InputError: A wrong field, data that are missing, a compiler that is not installed, or rows that hold as many
            examples as fit, which only encoding tells.
    """
    check_experiment(config)
    task = build_task(config.run.task, config.seeds[0])
    questions = len(questions_of(task, config.run))
    rows = []
    for part in parts_of(config):
        # Of the first method, as no method changes the shapes.
        found = outline(cell_config(part, Cell(part.methods[0], part.seeds[0])), topology)
        for method in part.methods:
            steps = _steps(part, task) if trains(method) else 0
            cells = [cell for cell in cells_of(part) if cell.method == method]
            done = sum(is_done(part, cell) for cell in cells)
            validated = _validations(part.run, steps) * _batches(_validation_questions(part.run, task), found)
            training = (steps * found.step + validated * found.evaluation) / 3600
            evaluation = _batches(questions, found) * found.evaluation / 3600
            name = shown_name(part)
            rows.append(PlannedCells(name, method, len(cells) - done, done, training, evaluation, found.bytes))
    return rows


def print_grid(
    rows: list[PlannedCells], topology: Topology, price: float | None, console: Console | None = None
) -> None:
    """Prints hours and, with a price of a chip for an hour, dollars: per method and model, and in sum."""
    console = console or PipedConsole(width=None if sys.stdout.isatty() else 140)
    table = Table()
    for name in (
        "model",
        "method",
        "cells left",
        "done",
        "training h",
        "evaluation h",
        "hours",
        "cost",
        "memory a device",
    ):
        table.add_column(name, overflow="fold")
    for row in rows:
        counts = (str(row.left), str(row.done), f"{row.training:.2f}", f"{row.evaluation:.2f}")
        table.add_row(
            row.model,
            row.method,
            *counts,
            f"{row.hours:.1f}",
            _dollars(row.hours, topology, price),
            _memory(row, topology),
        )
    hours = sum(row.hours for row in rows)
    left, done = sum(row.left for row in rows), sum(row.done for row in rows)
    table.add_section()
    table.add_row("all", "", str(left), str(done), "", "", f"{hours:.1f}", _dollars(hours, topology, price), "")
    console.print(f"{topology}: hours of one such machine; training and evaluation are those of one cell")
    console.print(table)
    for line in CAVEATS:
        console.print(f"assumed: {line}", style="dim")


def fits(row: PlannedCells, topology: Topology) -> bool:
    """Whether the memory that training takes is there, by the model of the compiler."""
    return not trains(row.method) or row.bytes <= topology.accelerator.memory


def _memory(row: PlannedCells, topology: Topology) -> str:
    if not trains(row.method):
        return ""
    need = f"{size(row.bytes)} of {size(topology.accelerator.memory)}"
    return need if fits(row, topology) else f"{need}: does not fit"


def _dollars(hours: float, topology: Topology, price: float | None) -> str:
    return "" if price is None else f"${hours * topology.chips * price:,.2f}"


def _batches(questions: int, found: Outline) -> int:
    return -(-questions // found.load.evaluation_rows)


def _validations(config: Config, steps: int) -> int:
    events = Events.of(config.train, steps)
    return sum(map(events.validates, range(1, steps + 1)))


def _validation_questions(config: Config, task: Task) -> int:
    """Each example is asked about one feature, under the focus types that training draws."""
    examples = task.splits["validation"].examples[: config.evaluation.validation_examples]
    return len(examples) * sum(weight > 0 for weight in config.focus.weights.values())


def _steps(config: ExperimentConfig, task: Task) -> int:
    """Updates of a cell that trains; both stages of a method of two share them."""
    train, path = config.run.train, Path(config.run_dir) / STEPS
    if train.steps is not None:
        return train.steps
    if path.exists():  # the experiment has begun, and these are counted
        return json.loads(path.read_text(encoding="utf-8"))["steps"]
    each = train.examples_per_step or (None if train.packing else train.batch_size)
    if each is None:
        raise InputError(
            "run.train.examples_per_step: is null, so that the steps of an epoch are known only once all texts are "
            "encoded; set it or run.train.steps"
        )
    return max(round(train.epochs * len(task.splits["train"].examples) / each), 1)
