"""The run folder: whose it is, the config it was made with, and the tokenizer it keeps."""

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fit_jax.config import Config, TokenizerConfig
from fit_jax.config_files import config_differences, dump_config, parse_config, read_config
from fit_jax.errors import InputError
from fit_jax.files import make_folder, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from fit_jax.data.task import Task

CONFIG = "config.yaml"
TOKENIZER = "tokenizer"
# Holds what the first stage of a method of two stages leaves: its checkpoints and metrics.
FIRST_STAGE = "first_stage"

# Fields that may differ when a run is resumed: they say where and on what it runs and what is shown of it, not what
# is computed.
MAY_DIFFER = (
    "run_dir",
    "task.data_dir",
    "mesh",
    "model.attention",
    "model.remat",
    "train.keep",
    "evaluation.splits",
    "evaluation.paraphrases",
    "evaluation.written",
    "evaluation.written_tokens",
    "evaluation.beams",
    "evaluation.batch_size",
    "evaluation.examples",
)


@contextmanager
def claimed(config: Config) -> Iterator[None]:
    """Makes the run's folder this config's and keeps other jobs out of it meanwhile; the lead does it for all.

    Raises:
        InputError: The folder cannot be written, is in use, holds a run of another config, or files of no known run.
    """
    from fit_jax.parallel.processes import is_lead, wait_for_all  # JAX; `--help` needs the names below without it

    if not is_lead():
        wait_for_all("the run folder is claimed")
        yield
        return
    folder = Path(config.run_dir)
    make_folder(folder)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is training in this run folder; wait or choose another"
            ) from error
        _adopt(folder, config)
        wait_for_all("the run folder is claimed")
        yield
    finally:
        os.close(lock)


def saved_config(folder: Path) -> Config:
    """The config that a run was made with.

    Raises:
        InputError: The folder holds no run, or one of a version with other fields, or its config is cut off.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: holds no run ({CONFIG} is missing); name the run_dir of a training run")
    return read_config(Config, path, complete=True)


def opened_config(folder: Path, overrides: Sequence[str]) -> Config:
    """The config of a run, with overrides of fields that may differ.

    Raises:
        InputError: As `saved_config`, or an override changes another field.
    """
    saved = saved_config(folder)
    config = parse_config(Config, ["--config", str(folder / CONFIG), *overrides])
    if rows := _unlike(saved, config):
        raise InputError(f"{'; '.join(rows)}: cannot change in a trained run; may change: {', '.join(MAY_DIFFER)}")
    return dataclasses.replace(config, run_dir=str(folder))


def run_tokenizer(folder: Path, task: "Task", asked: TokenizerConfig, keep: bool) -> "PreTrainedTokenizerFast":
    """The run's own tokenizer where it keeps one, else the one that is asked for.

    Args:
        folder: The run's folder.
        task: Supplies the texts to train a tokenizer on.
        asked: Resolved config.
        keep: Whether to save the tokenizer with the run.
    """
    from fit_jax.data.vocabulary import task_tokenizer
    from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer

    kept = folder / TOKENIZER
    if kept.is_dir():
        return load_tokenizer(kept)
    tokenizer = task_tokenizer(task, asked)
    if keep:
        partial = folder / f".{TOKENIZER}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        save_tokenizer(tokenizer, partial)
        os.replace(partial, kept)
    return tokenizer


def _adopt(folder: Path, config: Config) -> None:
    """Writes the config into a new run's folder; compares it with that of an old one.

    A run without any checkpoint, mostly for a mistake in its config, has nothing to lose and gives way to another.
    """
    if not (folder / CONFIG).exists():
        for name in ("checkpoints", "metrics.jsonl"):
            if (folder / name).exists():
                raise InputError(f"{folder}: holds {name} but no {CONFIG}; choose another run_dir or empty this one")
        write_text(folder / CONFIG, dump_config(config))
        return
    rows = _unlike(saved_config(folder), config)
    # A checkpoint is named by its step; one that was cut off while it was written bears another name.
    stages = (folder, folder / FIRST_STAGE)
    if rows and not any(path.name.isdecimal() for stage in stages for path in (stage / "checkpoints").glob("*")):
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
        write_text(folder / CONFIG, dump_config(config))
    elif rows:
        raise InputError(
            f"{folder}: holds a run of another config ({'; '.join(rows)}); "
            "choose another run_dir, or give the same values to resume it"
        )


def _unlike(saved: Config, config: Config) -> list[str]:
    """The differences that make it another run."""
    return config_differences(saved, config, MAY_DIFFER)
