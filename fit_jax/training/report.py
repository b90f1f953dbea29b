"""After training: a run's model, evaluated on every split, and its report."""

from typing import Literal

from fit_jax.evaluation import report
from fit_jax.training.run import Run, subject


def report_run(run: Run) -> None:
    """Evaluates the run's best checkpoint and writes `report/`, unless that is already there.

    Raises:
        InputError: `evaluation` names a split that the task lacks.
    """
    if not (run.folder / report.FOLDER / "index.html").exists():
        evaluate_run(run)


def evaluate_run(run: Run, which: int | Literal["best", "last"] = "best") -> None:
    """Evaluates a checkpoint of the run, writes `report/` anew and prints its main table."""
    report.report_run(run.folder, run.task, subject(run, which), run.config)
