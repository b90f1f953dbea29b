"""Runs an experiment cell by cell; a cell is one method and seed, and is done once."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from fit_jax.config import Config
from fit_jax.config_files import config_differences, dump_config, read_config
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Evaluation, Subject, evaluate, evaluated_splits, is_written
from fit_jax.evaluation.queries import Query, ask
from fit_jax.evaluation.report import FOLDER, print_table, progress_bar, read_predictions, write_predictions
from fit_jax.experiment.config import ROBUST, STEERED, TRAINED, ExperimentConfig, check_experiment
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.other_models import CONFIG, model_name, models_beside
from fit_jax.files import make_folder, write_text
from fit_jax.methods.activation_steering import Base, activation_addition, attention_steering
from fit_jax.methods.few_shot import few_shot_encoder
from fit_jax.methods.robust import Budget, Robust, train_robust
from fit_jax.parallel.processes import is_lead
from fit_jax.runs.run import Run, load_model, scorer, set_up, starting_state, subject
from fit_jax.runs.run_folder import claimed
from fit_jax.runs.trainer import Ending, train
from fit_jax.training.loop import TrainingFailed
from fit_jax.training.optimizer import make_optimizer

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


class Cell(NamedTuple):
    """One method and seed."""

    method: str
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.method}-seed{self.seed}"


def run_experiment(config: ExperimentConfig) -> Path:
    """Does the cells that are missing and writes the report of all; returns the report's folder.

    Raises:
        InputError: A wrong field, or a folder that holds another experiment.
        TrainingFailed: A training diverged; the finished cells stay, and so does that cell's last checkpoint.
    """
    check_experiment(config)
    # What is wrong here is to be told now, not after the last cell.
    models_beside(config)
    _check_steered(config)
    folder = Path(config.run_dir)
    _adopt(folder, config)
    cells = [Cell(method, seed) for seed in config.seeds for method in config.methods]
    for number, cell in enumerate(cells, start=1):
        path = folder / "cells" / cell.name / "predictions.jsonl"
        if not path.exists():
            _say(f"cell {number} of {len(cells)}: {cell.method}, seed {cell.seed}")
            try:
                evaluation, note = _do(config, cell)
            except (InputError, TrainingFailed) as error:
                raise type(error)(f"{cell.method}, seed {cell.seed}: {error}") from error
            if is_lead():
                write_text(path.with_name("note.txt"), note)
                write_predictions(path, evaluation.predictions)
        jax.clear_caches()  # the programs of a finished cell
    _report(config, folder, cells)
    return folder / FOLDER


def _check_steered(config: ExperimentConfig) -> None:
    steered = " and ".join(method for method in config.methods if method in STEERED)
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


def _do(config: ExperimentConfig, cell: Cell) -> tuple[Evaluation, str]:
    """Trains where the method does, evaluates, and says what a reader must know of it."""
    settings = _run_config(config, cell)
    make_folder(Path(settings.run_dir))
    run = set_up(settings, keep_tokenizer=True)
    evaluated_splits(run.task, run.config)
    asked, note = _METHODS[cell.method](config, cell, run)
    with progress_bar(f"{cell.method}, seed {cell.seed}") as on_progress:
        return evaluate(run.task, asked, run.config, on_progress), note


def _trained(config: ExperimentConfig, cell: Cell, run: Run) -> tuple[Subject, str]:
    with claimed(run.config):
        if train(run) is Ending.TOLD_TO:
            raise TrainingFailed("told to stop; the state is saved, the same command goes on from here")
    return subject(run), ""


def _untrained(config: ExperimentConfig, cell: Cell, run: Run) -> tuple[Subject, str]:
    placed = starting_state(run, None)
    note = "" if run.config.model.pretrained else "of random weights, since no pretrained model is named"
    return Subject(run.encoder, scorer(run, placed.graphdef), placed.state.params), note


def _few_shot(config: ExperimentConfig, cell: Cell, run: Run) -> tuple[Subject, str]:
    base, note = _untrained(config, cell, run)
    encoder = few_shot_encoder(
        run.encoder, run.task, run.config.focus.place, run.config.tokenizer.template, config.shots, run.config.seed
    )
    return dataclasses.replace(base, encoder=encoder), note


def _robust(config: ExperimentConfig, cell: Cell, run: Run) -> tuple[Subject, str]:
    robust = Robust(config.poe_weight, 0.0) if cell.method == "poe" else Robust(0.0, config.group_step)
    settings = run.config.train
    steps = settings.steps
    assert steps is not None, "check_experiment"
    optimizer = make_optimizer(run.config.optimizer, steps)
    placed = starting_state(run, optimizer)
    budget = Budget(steps, settings.batch_size, settings.sequence_length, run.config.seed)
    examples = run.task.splits["train"].examples
    state, losses = train_robust(
        placed.graphdef, placed.state, optimizer, examples, run.encoder, run.mesh, robust, budget
    )
    if not math.isfinite(sum(losses)):
        step = next(n for n, loss in enumerate(losses, start=1) if not math.isfinite(loss))
        raise TrainingFailed(f"the loss is not finite at step {step}; lower run.optimizer.learning_rate")
    lines = [json.dumps({"step": n, "loss": loss}) + "\n" for n, loss in enumerate(losses, start=1)]
    if is_lead():
        write_text(run.folder / "metrics.jsonl", "".join(lines))
    return Subject(run.encoder, scorer(run, placed.graphdef), state.params), ""


def _steered(config: ExperimentConfig, cell: Cell, run: Run) -> tuple[Subject, str]:
    """Steers the pretrained model, or, where there is none, the one that `sft_y` trains with this seed."""
    if run.config.model.pretrained:
        placed = starting_state(run, None)
        graphdef, states, whose = placed.graphdef, placed.state.params, "the pretrained model"
    else:
        other = set_up(_run_config(config, Cell("sft_y", cell.seed)), keep_tokenizer=True)
        with claimed(other.config):
            if train(other) is Ending.TOLD_TO:
                raise TrainingFailed("told to stop; the state is saved, the same command goes on from here")
        model = load_model(other)
        graphdef, states, whose = model.graphdef, model.params, "SFT(y)"
        run = dataclasses.replace(run, encoder=other.encoder)
    base = Base(graphdef, states, run.mesh, run.encoder, run.config.evaluation.batch_size)
    steer = activation_addition if cell.method == "activation_addition" else attention_steering
    found, note = steer(base, run.task, run.config.seed)
    return found, f"on {whose}; {note}"


Method = Callable[[ExperimentConfig, Cell, Run], tuple[Subject, str]]
_METHODS: dict[str, Method] = {
    "zero_shot": _untrained,
    "few_shot": _few_shot,
    **dict.fromkeys(TRAINED, _trained),
    **dict.fromkeys(ROBUST, _robust),
    **dict.fromkeys(STEERED, _steered),
}


def _run_config(config: ExperimentConfig, cell: Cell) -> Config:
    method = cell.method if cell.method in TRAINED else "sft_y"
    return dataclasses.replace(
        config.run,
        run_dir=str(Path(config.run_dir) / "cells" / cell.name),
        seed=cell.seed,
        train=dataclasses.replace(config.run.train, method=method),
    )


def _report(config: ExperimentConfig, folder: Path, cells: list[Cell]) -> None:
    if not is_lead():
        return
    run = set_up(_run_config(config, Cell(config.reference, config.seeds[0])))
    found: dict[tuple[str, int], Evaluation] = {}
    for seed in config.seeds:
        task = run.task if seed == run.config.seed else build_task(config.run.task, seed)
        queries = _questions(task, dataclasses.replace(config.run, seed=seed))
        for method in config.methods:
            found[method, seed] = _answers(folder / "cells" / Cell(method, seed).name / "predictions.jsonl", queries)
    predictions = {key: evaluation.predictions for key, evaluation in found.items()}
    shown = {method: found[method, run.config.seed] for method in config.methods}
    notes = [f"{len(config.seeds)} seed(s); {len(next(iter(predictions.values()))):,} answers of each method and seed."]
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


def _questions(task: Task, config: Config) -> dict[tuple[str, ...], Query]:
    """What every method with the config's seed is asked, by what tells one question from another."""
    return {
        (q.split, q.example.uid, q.focus, q.feature, q.paraphrases): q
        for name in evaluated_splits(task, config)
        for example in task.splits[name].examples[: config.evaluation.examples]
        for q in ask(task.text, name, example, config.evaluation.paraphrases, config.seed).queries
    }


def _answers(path: Path, queries: dict[tuple[str, ...], Query]) -> Evaluation:
    """A cell's answers and their questions.

    Raises:
        InputError: The file is damaged, or lacks answers.
    """
    by_key = {(p.split, p.uid, p.focus, p.feature, p.paraphrases): p for p in read_predictions(path)}
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
    make_folder(folder)
    path, cells = folder / CONFIG, folder / "cells"
    begun = any(any(cells.glob(f"*/{kept}")) for kept in ("predictions.jsonl", "checkpoints/*[0-9]"))
    rows = config_differences(read_config(ExperimentConfig, path), config, MAY_DIFFER) if path.exists() else []
    if rows and begun:
        raise InputError(
            f"{folder}: holds another experiment ({'; '.join(rows)}); choose another run_dir, or give the same "
            "values to go on with it"
        )
    if is_lead() and not begun:
        if rows:  # tokenizers of a config that never began; no other config may take them up
            for tokenizer in cells.glob("*/tokenizer"):
                shutil.rmtree(tokenizer)
        write_text(path, dump_config(config))


def _say(line: str) -> None:
    if is_lead():
        print(line, flush=True)
