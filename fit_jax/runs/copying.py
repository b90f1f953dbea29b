"""A run folder that holds what asking its model needs, and nothing else: to be given away."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp

from fit_jax.config_files import dump_config
from fit_jax.data.kept_task import keep_task
from fit_jax.data.task import Task
from fit_jax.errors import InputError, cannot_write
from fit_jax.files import write_text
from fit_jax.foreign import exists, named
from fit_jax.models.model_folder import CONFIG_FILES, HUB_FILES
from fit_jax.models.tensor_files import new_folder
from fit_jax.runs.inputs import Inputs, config_print, fingerprints, revisions, tokenizer_print, write_inputs
from fit_jax.runs.resolve import resolve
from fit_jax.runs.run import Run, TrainedModel, frozen_are_given
from fit_jax.runs.run_folder import CONFIG, TASK, TOKENIZER, saved_config
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.progress import Progress
from fit_jax.training.state import TrainState
from fit_jax.training.stopping import Stopping

# Folders of the copy: the pretrained model, and the adapter that training began with.
_BASE, _FIRST_ADAPTER = "base", "first_adapter"


def copy_run(run: Run, model: TrainedModel, folder: Path, examples: int) -> None:
    """Writes a run folder with one checkpoint, without the optimizer's state, the data and the reports.

    A pretrained model or an adapter that lies in a folder of this machine comes along, and the copy's config names it
    relative to the copy; one of the hub stays a name.

    Args:
        run: The run.
        model: What is read from its checkpoint.
        folder: The new folder.
        examples: How many examples of each split it holds.

    Raises:
        InputError: The folder is there already or cannot be written, or the model is the one before tuning.
    """
    if not model.step:
        raise InputError(f"{named(run.folder)}: checkpoint 0 is the model before tuning; copy one that was trained")
    config = replace(saved_config(run.folder), run_dir=folder.name)
    config = replace(config, model=replace(config.model, pretrained=run.config.model.pretrained))
    config = replace(config, lora=replace(config.lora, adapter=run.config.lora.adapter))
    with new_folder(folder) as made:
        if (path := _local(config.model.pretrained)) is not None:
            # Of a model that was tuned whole, the checkpoint has every weight.
            _copy_files(path, made / _BASE, HUB_FILES if config.lora.rank or config.lora.adapter else CONFIG_FILES)
            config = replace(config, model=replace(config.model, pretrained=_BASE))
        if (path := _local(config.lora.adapter)) is not None:
            _copy_files(path, made / _FIRST_ADAPTER, HUB_FILES)
            config = replace(config, lora=replace(config.lora, adapter=_FIRST_ADAPTER))
        write_text(made / CONFIG, dump_config(config))
        _copy_files(run.folder / TOKENIZER, made / TOKENIZER, ("*",))
        task = _first_examples(run.task, examples)
        keep_task(made / TASK, task)
        _keep_checkpoint(run, model, made)
        resolved = resolve(run.config)
        prints = fingerprints(task, resolved, kept=True) | config_print(made / CONFIG)
        prints |= tokenizer_print(made / TOKENIZER)
        write_inputs(made, Inputs(prints, revisions(resolved)))


def _local(name: str | None) -> Path | None:
    """The folder of this machine that a model or an adapter is, rather than a name of the hub's."""
    return None if name is None or not exists(Path(name)) else Path(name)


def _copy_files(source: Path, target: Path, patterns: Iterable[str]) -> None:
    try:
        target.mkdir()
        for path in {path for pattern in patterns for path in source.glob(pattern) if path.is_file()}:
            shutil.copyfile(path, target / path.name)
    except OSError as error:
        raise cannot_write(named(target), error) from error


def _first_examples(task: Task, count: int) -> Task:
    """The task with the first examples of each split; those of training are but counted in any case."""
    splits = {
        name: split if name == "train" else replace(split, examples=split.examples[:count])
        for name, split in task.splits.items()
    }
    return replace(task, splits=splits)


def _keep_checkpoint(run: Run, model: TrainedModel, folder: Path) -> None:
    state = TrainState(jnp.int32(model.step), *model.params, opt_state=())
    progress = Progress(Stopping(run.config.train.best, run.config.train.patience, best_step=model.step))
    progress.step = model.step
    checkpoints = Checkpoints(folder, 1, with_frozen=not frozen_are_given(run), cleans=False)
    try:
        checkpoints.save(model.step, state, progress.to_json(), best=model.step)
        checkpoints.wait()
    finally:
        checkpoints.close()
