"""What a Python program does with fit_jax: tune a model or load one, which is then asked and evaluated (docs/api.md).

`import fit_jax` gives these names without loading JAX; the modules `fit_jax.train` and `fit_jax.evaluate` are the
commands of those names, so here tuning is `tune` and a model evaluates itself.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fit_jax.config import load_config
from fit_jax.errors import InputError
from fit_jax.evaluation.interactive import LabelledText
from fit_jax.files import check_folder_name
from fit_jax.focus.decoy_text import PLACES, insert_decoy
from fit_jax.focus_inputs import option_list
from fit_jax.focus_model import Checkpoint, FocusModel
from fit_jax.focus_results import Answer, Attribution, Scores
from fit_jax.foreign import shown
from fit_jax.parallel.processes import keep_compiled
from fit_jax.runs.job import train_and_report
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import ROWS, opened_config
from fit_jax.runs.source_rows import keep_rows, leaving_nothing

__all__ = [
    "PLACES",
    "Answer",
    "Attribution",
    "Checkpoint",
    "FocusModel",
    "LabelledText",
    "Scores",
    "insert_decoy",
    "load",
    "tune",
]


def load(
    folder: str | Path,
    checkpoint: Checkpoint = "best",
    settings: Mapping[str, Any] | None = None,
    trust_code: bool = False,
) -> FocusModel:
    """The model of a run folder, wherever that lies now.

    Args:
        folder: A run folder.
        checkpoint: Its best checkpoint by validation, its last, or that of a step; 0 is the model before tuning.
        settings: Fields of its config that may differ, by dotted name, such as `{"mesh.data": 1}`.
        trust_code: Whether the Python functions that the description of its data names may run; they are needed where
            the folder does not keep the examples that are evaluated.

    Raises:
        InputError: The folder holds no trained run, it does not fit this machine, or its data need code that is not
            trusted.
    """
    keep_compiled()
    run = set_up(opened_config(Path(folder), option_list(settings)), trust_code=trust_code)
    return FocusModel(run, checkpoint, settings, trust_code)


def tune(
    run_dir: str | Path,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    rows: Iterable[Mapping[str, Any]] | None = None,
    description: Mapping[str, Any] | str | Path | None = None,
) -> FocusModel:
    """Trains a model, or what is left of its training, and reports on it, as `fit-jax train`.

    Args:
        run_dir: The run folder; started again with the same one, a run goes on where it was.
        config: A config file, or the name of one that comes with the package, such as `demo`.
        settings: Fields of the config by dotted name, such as `{"train.steps": 100}`.
        rows: Data of one's own: mappings, a pandas DataFrame or a `datasets.Dataset`. They are kept in the run folder.
        description: What the columns of the rows mean: the fields of a description file (docs/own_data.md), or the path
            of one; the rows are in the place of its `files`.

    Raises:
        InputError: What the config or the description says is unknown, missing or does not fit together; of rows that
            no run could begin with, nothing is left but the list of malformed rows that the line names.
        TrainingFailed: The loss is no longer a number.
    """
    if not (config is None or isinstance(config, str | Path)):
        raise InputError(f"tune: config: {shown(config)} is no path; fields go by name, as in settings=...")
    keep_compiled()
    folder = Path(run_dir)
    given = [] if config is None else ["--config", str(config)]
    given += [*option_list(settings), "--run_dir", str(folder)]
    if (rows is None) != (description is None):
        raise InputError("tune: rows and description belong together; give both, or name a task in the config")
    if rows is None or description is None:
        asked = load_config(given)
        if asked.task.parts:
            raise InputError(
                "tune: a mixture is asked with python -m fit_jax.steer RUN --part NAME; train it with train"
            )
        return FocusModel(train_and_report(asked), trust_code=True)
    check_folder_name(str(folder), "run_dir")
    with leaving_nothing(folder):
        given += ["--task.name", "jsonl", "--task.file", str(keep_rows(folder / ROWS, rows, description))]
        return FocusModel(train_and_report(load_config(given)), trust_code=True)
