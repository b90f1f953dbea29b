"""The whole job of a run: set up, trained or resumed, and reported on."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from fit_jax import signals
from fit_jax.config import Config
from fit_jax.evaluation.mixture_report import focus_tables
from fit_jax.parallel.processes import is_lead
from fit_jax.runs.evaluating import evaluate_run, has_report
from fit_jax.runs.inputs import Changed
from fit_jax.runs.remote_folder import working_folder
from fit_jax.runs.run import Run, set_up
from fit_jax.runs.run_folder import claimed, has_checkpoint
from fit_jax.runs.trackers import check_trackers, tracked
from fit_jax.runs.trainer import Ending, train


def train_and_report(config: Config, changed: Changed = "refuse") -> Run:
    """Trains the run of a config, or what is left of it, and reports on it where that has not been done.

    Args:
        config: The run.
        changed: Whether a run that has begun may go on with other data, tokenizer or weights.

    Raises:
        InputError: What the config names is missing, malformed or does not fit together.
        TrainingFailed: The loss is no longer a number.
    """
    with (
        working_folder(config.run_dir, "run_dir") as folder,
        claimed(config := replace(config, run_dir=str(folder))),
        signals.telling(partial(_kept, folder)),
    ):
        check_trackers(config.train.trackers)
        run = set_up(config, trains=True, changed=changed)
        with tracked(run) as trackers:
            ending = train(run, trackers)
            if is_lead():
                print(f"{run.folder}: {ending.value}", flush=True)
            # A report made before the last step, of a run that was told to stop, is of another model.
            trained = ending in (Ending.ALL_STEPS, Ending.PATIENCE)
            if trained or (ending is Ending.ALREADY and not has_report(run)):
                answers = {name: found.predictions for name, found in evaluate_run(run).items()}
                trackers.write_table(*focus_tables(answers))
    return run


def _kept(folder: Path) -> str:
    """What the same command would do once more, for who has just interrupted it."""
    if has_checkpoint(folder):
        return "the same command goes on from the last checkpoint"
    return "nothing was saved yet; the same command starts over"
