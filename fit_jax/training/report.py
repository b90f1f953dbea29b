"""After training: a run's model, evaluated on every split, and its report."""

from typing import Literal

from fit_jax.evaluation.report import FOLDER, report_run
from fit_jax.training.run import Run, subject


def has_report(run: Run) -> bool:
    """Whether the run was evaluated to the end."""
    return (run.folder / FOLDER / "index.html").exists()


def evaluate_run(run: Run, which: int | Literal["best", "last"] = "best") -> None:
    """Evaluates a checkpoint of the run, writes its report anew and prints the main table.

    Raises:
        InputError: There is no such checkpoint, or `evaluation` names a split that the task lacks.
    """
    report_run(run.folder, run.task, subject(run, which), run.config)
