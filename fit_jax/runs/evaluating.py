"""After training: a run's model, evaluated on every split, its report, and its adapter in PEFT's format."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from flax import nnx

from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.report import FOLDER, report_run
from fit_jax.files import PARTIAL
from fit_jax.models.adapters import write_adapter
from fit_jax.parallel.processes import is_lead
from fit_jax.runs.run import Run, TrainedModel, load_model, scorer

ADAPTER = "adapter"


def has_report(run: Run) -> bool:
    """Whether the run was evaluated to the end."""
    return (run.folder / FOLDER / "index.html").exists()


def evaluate_run(run: Run, which: int | Literal["best", "last"] = "best") -> None:
    """Evaluates a checkpoint of the run, writes its report anew and prints the main table.

    An adapter on a pretrained model is written too.

    Raises:
        InputError: There is no such checkpoint, or `evaluation` names a split that the task lacks.
        RunFailed: The adapter does nothing.
    """
    model = load_model(run, which)
    if run.lora.rank and run.model.pretrained is not None:
        _keep_adapter(run, model)
    asked = Subject(run.encoder, scorer(run, model.graphdef), model.params)
    # The card tells what the model is, also where that is an adapter's to say.
    report_run(run.folder, run.task, asked, replace(run.config, lora=run.lora))


def _keep_adapter(run: Run, model: TrainedModel) -> None:
    decoder = nnx.merge(model.graphdef, *model.params)
    if not is_lead():  # every process takes part in gathering what is written
        with TemporaryDirectory() as scratch:
            write_adapter(Path(scratch), decoder, run.lora)
        return
    partial = run.folder / f"{PARTIAL}{ADAPTER}"
    partial.mkdir()
    try:
        write_adapter(partial, decoder, run.lora)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(run.folder / ADAPTER, ignore_errors=True)
    os.replace(partial, run.folder / ADAPTER)
