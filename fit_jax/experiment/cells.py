"""One cell of an experiment: a method and a seed, trained where the method does, and evaluated."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

from fit_jax.config import Config
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Evaluation, Subject, evaluate, evaluated_splits
from fit_jax.evaluation.report import progress_bar
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.experiment.method_tables import METHOD_NAMES
from fit_jax.files import make_folder, remove_partials, write_text
from fit_jax.foreign import Fields, named, read_object
from fit_jax.hub import pin
from fit_jax.methods import training_free_method, trains
from fit_jax.methods.training_free import Base
from fit_jax.parallel.processes import on_lead
from fit_jax.runs.inputs import check_inputs, fingerprints, read_inputs
from fit_jax.runs.resolve import resolve
from fit_jax.runs.run import Run, TrainedModel, load_model, set_up, starting_state, subject_of
from fit_jax.runs.run_folder import FIRST_STAGE, claimed
from fit_jax.runs.trackers import check_trackers, tracked
from fit_jax.runs.trainer import Ending, train
from fit_jax.sums import Digests
from fit_jax.train_config import TrainConfig
from fit_jax.training.loop import TrainingFailed
from fit_jax.training.metrics import FIGURE, read_metrics

BUDGET = "budget.json"
METRICS = "metrics.jsonl"
_LARGEST = 2**62


class Budget(NamedTuple):
    """What a cell was trained with.

    Attributes:
        updates: Optimizer steps, those of both stages where there are two.
        examples: Training examples that these steps took, repeated ones counted again.
        epochs: The same in passes over the training split.
        answers: Answers that were learnt; more than the examples where each is trained on under several instructions.
        evaluated_step: The update whose checkpoint is evaluated.
        rule: The measure on validation that chose it.
        figures: What the method says of itself.
        validations: How many there were to choose that checkpoint from, with two stages those of the second alone; 0 in
            a cell of an earlier version, which did not count them.
    """

    updates: int
    examples: int
    epochs: float
    answers: int
    evaluated_step: int
    rule: str
    figures: dict[str, float]
    validations: int = 0


class Cell(NamedTuple):
    """One method and seed."""

    method: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.method}-seed{self.seed}"


def cell_config(config: ExperimentConfig, cell: Cell) -> Config:
    """The run of a cell. Of a method that trains nothing it is SFT(y)'s, which only its prompts and model matter of."""
    method = cell.method if trains(cell.method) else "sft_y"
    return replace(
        config.run,
        run_dir=str(Path(config.run_dir) / "cells" / cell.name),
        seed=cell.seed,
        task=replace(config.run.task, keep_examples=False),  # a copy for each cell would be one too many
        train=replace(config.run.train, method=method),
    )


def do_cell(config: ExperimentConfig, cell: Cell) -> tuple[Evaluation, str]:
    """Trains where the method does, evaluates, and says what a reader must know of it ("" for nothing).

    The folder of a method that trains keeps what it took (`Budget`).

    Raises:
        InputError: What the config names is missing, malformed or does not fit together.
        TrainingFailed: Training diverged or was told to stop; the last checkpoint is intact.
    """
    settings = cell_config(config, cell)
    if trains(cell.method):
        run, model = _trained(settings)
        _keep_budget(run, model)
        subject, note = subject_of(run, model), ""
    else:
        on_lead(partial(_clear, Path(settings.run_dir)))
        run = set_up(settings, trains=True)
        evaluated_splits(run.task, run.config)
        subject, note = _training_free(config, cell, run)
    with progress_bar(f"{cell.method}, seed {cell.seed}") as on_progress:
        return evaluate(run.task, subject, run.config, on_progress), note


def _clear(folder: Path) -> None:
    """Makes a cell's folder, without what a killed process was writing there."""
    make_folder(folder)
    remove_partials(folder)


def _trained(settings: Config) -> tuple[Run, TrainedModel]:
    """A run, trained to its end, and its best checkpoint."""
    with claimed(settings):
        check_trackers(settings.train.trackers)
        run = set_up(settings, trains=True)
        with tracked(run) as trackers:
            if train(run, trackers) is Ending.STOPPED:
                raise TrainingFailed(Ending.STOPPED.value)
    return run, load_model(run)


def check_unchanged(config: ExperimentConfig, cell: Cell) -> None:
    """Checks that the data, the base model and the adapter are those that a finished cell was made from.

    Raises:
        InputError: They are not, and other cells could not be compared with it.
    """
    settings = cell_config(config, cell)
    folder = Path(settings.run_dir)
    kept = read_inputs(folder)
    if kept is None:
        return
    pin(kept.revisions)
    task = build_task(settings.task, settings.seed)
    found = fingerprints(task, resolve(settings), digests=Digests(kept.files))
    try:
        check_inputs(folder, kept, found, "refuse")
    except InputError as error:
        raise InputError(
            f"{str(error).partition('; ')[0]}; put it back as it was, or start the experiment in another run_dir"
        ) from error


def choice_of(spent: Sequence[Budget]) -> str:
    """How the evaluated checkpoints were chosen, and among how many (a mean) where that is known of all."""
    counts = [budget.validations for budget in spent]
    among = f" of {sum(counts) / len(counts):.0f}" if all(counts) else ""
    return f"the best{among} by validation {spent[0].rule}"


def read_budget(path: Path) -> Budget:
    """What a finished cell says that it was trained with.

    Raises:
        InputError: The file is damaged.
    """
    # The report does without it, and all else that the cell holds is whole.
    fields = read_object(path, "put it back from a copy, or move that one file away")
    updates, examples, answers, evaluated = (
        fields.whole(name, 0, _LARGEST) for name in ("updates", "examples", "answers", "evaluated_step")
    )
    figures = fields.section("figures") or Fields({}, named(path))
    return Budget(
        updates,
        examples,
        fields.number("epochs", -1, _LARGEST),
        answers,
        evaluated,
        fields.choice("rule", get_args(get_type_hints(TrainConfig)["best"])),
        {name: figures.number(name, -_LARGEST, _LARGEST) for name in figures.values},
        fields.whole("validations", 0, _LARGEST, 0),
    )


def _keep_budget(run: Run, model: TrainedModel) -> None:
    on_lead(lambda: write_text(run.folder / BUDGET, json.dumps(budget_spent(run, model.step)._asdict()) + "\n"))


def budget_spent(run: Run, evaluated: int) -> Budget:
    """What a run that has ended was trained with; `evaluated` is the step of its last stage that is evaluated."""
    train_config = run.config.train
    texts = train_config.examples_per_step or train_config.batch_size  # rows that do not pack hold one each
    stages = [read_metrics(path) for name in (FIRST_STAGE, "") if (path := run.folder / name / METRICS).exists()]
    updates = sum(records[-1]["step"] for records in stages)
    answers = sum(record["examples"] for records in stages for record in records)
    before = sum(records[-1]["step"] for records in stages[:-1])
    figures = {name: value for name, value in stages[-1][-1].items() if name.startswith(FIGURE)}
    epochs = updates * texts / len(run.task.splits["train"].examples)
    validations = sum("validation_loss" in record for record in stages[-1])
    return Budget(
        updates, updates * texts, epochs, answers, before + evaluated, train_config.best, figures, validations
    )


def _training_free(config: ExperimentConfig, cell: Cell, run: Run) -> tuple[Subject, str]:
    """The method on the pretrained model; where there is none, on random weights, or, if it steers, on SFT(y)'s.

    One that asks for another method's model takes that.
    """
    method = training_free_method(cell.method)
    rows = run.config.evaluation.batch_size
    of = method.model_of or ("sft_y" if method.steers and not run.config.model.pretrained else None)
    if of is not None:
        trained, model = _trained(cell_config(config, Cell(of, cell.seed)))
        base, whose = Base(model.graphdef, model.params, run.mesh, trained.encoder, rows), f"on {METHOD_NAMES[of]}"
    else:
        placed = starting_state(run, None)
        base = Base(placed.graphdef, placed.state.params, run.mesh, run.encoder, rows)
        whose = "" if run.config.model.pretrained else "of random weights, since no pretrained model is named"
    subject, note = method.apply(base, run.task, run.config, config.shots)
    return subject, "; ".join(filter(None, (whose, note)))
