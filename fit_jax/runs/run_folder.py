"""The run folder: whose it is, the config it was made with, and the tokenizer it keeps."""

import dataclasses
import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fit_jax.config import Config, TokenizerConfig
from fit_jax.config_files import config_differences, dump_config, overlaid, read_config
from fit_jax.errors import InputError
from fit_jax.files import (
    PARTIAL,
    asked_name,
    check_folder_name,
    check_outputs,
    make_folder,
    naming_full_disk,
    remove_partials,
    write_text,
)
from fit_jax.foreign import exists, listed, named, shown
from fit_jax.runs.run_log import logged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from fit_jax.data.task import Task

CONFIG = "config.yaml"
TOKENIZER = "tokenizer"
# Holds the words of the prompts and the examples that are evaluated.
TASK = "task"
EVALUATIONS = "evaluations"
CHECKPOINTS = "checkpoints"
LOCK, LOG = ".lock", "log.txt"
ROWS = "source"  # those given in memory
CARD = "MODEL_CARD.md"
TRACKERS = "trackers.json"  # by what name each knows the run
# Holds what the first stage of a method of two stages leaves: its checkpoints and metrics.
FIRST_STAGE = "first_stage"

# What commands write in a run folder and in its report.
_FILES = (CONFIG, LOCK, LOG, "metrics.jsonl", "inputs.json", "versions.json", TRACKERS, CARD)
_FOLDERS = (CHECKPOINTS, FIRST_STAGE, TOKENIZER, TASK, EVALUATIONS, "tensorboard", "adapter", "report")
_REPORT_FILES = ("index.html", "summary.md", "focus_accuracy.jsonl", "predictions.jsonl", "radar.svg", "radar.png")

# Sections of a config that versions before rehearsal did not write.
_LATER = ("rehearsal",)
# Fields that may differ when a run is resumed: they say where and on what it runs, what is shown of it, and whether
# texts over the limit are cut or refused; not what is computed. What lies where `model.pretrained` and `lora.adapter`
# say is compared by its fingerprints.
MAY_DIFFER = (
    "run_dir",
    "task.data_dir",
    "task.keep_examples",
    "mesh",
    "model.pretrained",
    "model.attention",
    "model.remat",
    "lora.adapter",
    "train.long_text",
    "train.keep",
    "train.profile",
    "train.trackers",
    "evaluation.seed",
    "evaluation.splits",
    "evaluation.paraphrases",
    "evaluation.paraphrases_each",
    "evaluation.written",
    "evaluation.written_tokens",
    "evaluation.beams",
    "evaluation.decoys",
    "evaluation.turns",
    "evaluation.texts",
    "evaluation.batch_size",
    "evaluation.examples",
)


class InUse(InputError):
    """Another process is at work in a folder."""


@contextmanager
def claimed(config: Config) -> Iterator[None]:
    """Makes the run's folder this config's, and it alone works there meanwhile.

    Raises:
        InputError: As `locked`, or the folder holds a run of another config, or files of no known run.
    """
    folder = Path(config.run_dir)
    with locked(folder, lambda: _adopt(folder, config)):
        yield


@contextmanager
def locked(folder: Path, prepare: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Keeps other commands that write out of a folder, for all processes; libraries' messages go to its `log.txt`.

    Args:
        folder: A run's or an experiment's; made where it is not there.
        prepare: What the lead does before any process goes on.

    Raises:
        InputError: The folder or something in it cannot be written, or it is in use.
    """
    from fit_jax.parallel.processes import on_lead  # JAX; `--help` needs the names above without it

    with naming_full_disk(folder), ExitStack() as stack:

        def lock() -> None:
            make_folder(folder)
            check_outputs(folder, _FILES, _FOLDERS)
            check_outputs(folder / "report", _REPORT_FILES, ("tasks",))
            work = f"{os.path.basename(sys.argv[0])} {' '.join(sys.argv[1:])}"[:500]
            stack.enter_context(held(folder))
            stack.enter_context(logged(folder / LOG, f"process {os.getpid()} on {socket.gethostname()}: {work}"))
            parts = (part for name in (TASK, "report") for part in (folder / name).glob("tasks/*"))
            for place in (folder, folder / FIRST_STAGE, folder / TASK, folder / ROWS, folder / "report", *parts):
                remove_partials(place)
            prepare()

        on_lead(lock)
        yield


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system lets go whatever ends the process.

    Raises:
        InUse: Another process holds it.
        InputError: The lock cannot be opened.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise InputError(f"{named(folder / LOCK)}: cannot be opened ({error.strerror}); move it away") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(lock, 200).decode(errors="replace").strip()
            raise InUse(
                f"{named(folder)}: another process is at work in this folder; wait for it "
                f"({shown(holder) or 'unknown'}), or choose another folder"
            ) from error
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(lock)


def saved_config(folder: Path) -> Config:
    """The config that a run was made with, its folders `placed`.

    Raises:
        InputError: The folder holds no run, or one of a version with other fields, or its config is cut off.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{named(folder)}: holds no run ({CONFIG} is missing); name the run_dir of a training run")
    return placed(read_config(Config, path, complete=True, later=_LATER), folder, Path())


def placed(config: Config, *roots: Path) -> Config:
    """The config with whole paths of its base model and its first adapter; ids of the hub stay.

    Args:
        config: A run's.
        roots: Where a relative path may begin; the first at which there is something counts.
    """

    def place(name: str | None) -> str | None:
        found = (root / name for root in roots if exists(root / name)) if name is not None else iter(())
        return next((os.path.abspath(path) for path in found), name)

    model = dataclasses.replace(config.model, pretrained=place(config.model.pretrained))
    lora = dataclasses.replace(config.lora, adapter=place(config.lora.adapter))
    return dataclasses.replace(config, model=model, lora=lora)


def opened_config(folder: Path, overrides: Sequence[str]) -> Config:
    """The config of a run, with overrides of fields that may differ.

    Raises:
        InputError: As `saved_config`, or an override changes another field.
    """
    check_folder_name(str(folder), "RUN")
    saved = saved_config(folder)
    config = placed(overlaid(saved, overrides), Path())
    may_differ = _may_differ(saved, config)
    if rows := config_differences(saved, config, may_differ):
        message = f"{listed(map(shown, rows), 2)}: cannot change in a trained run; may change: {', '.join(may_differ)}"
        raise InputError(message)
    return dataclasses.replace(config, run_dir=str(folder))


def run_tokenizer(folder: Path, task: "Task", asked: TokenizerConfig) -> "PreTrainedTokenizerFast":
    """The run's own tokenizer where it keeps one, else the one that is asked for.

    Args:
        folder: The run's folder.
        task: Supplies the texts to train a tokenizer on.
        asked: Resolved config.

    Raises:
        InputError: The run has begun and its tokenizer is gone: another one would read its checkpoints wrongly.
    """
    from fit_jax.data.vocabulary import task_tokenizer
    from fit_jax.focus.tokenizers import load_tokenizer

    kept = folder / TOKENIZER
    if kept.is_dir():
        return load_tokenizer(kept)
    if has_checkpoint(folder):
        raise InputError(
            f"{named(kept)}: is missing, and without it the run's checkpoints cannot be used; put that folder back "
            "from a copy (nothing is said against the checkpoints)"
        )
    return task_tokenizer(task, asked)


def keep_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """Saves the tokenizer with a run that has none yet."""
    from fit_jax.focus.tokenizers import save_tokenizer

    kept, partial = folder / TOKENIZER, folder / f"{PARTIAL}{TOKENIZER}"
    if not kept.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        save_tokenizer(tokenizer, partial)
        os.replace(partial, kept)


def _adopt(folder: Path, config: Config) -> None:
    """Writes the config into a new run's folder; compares it with that of an old one.

    A run without any checkpoint, mostly for a mistake in its config, has nothing to lose and gives way to another.
    """
    if not (folder / CONFIG).exists():
        if left := [name for name in (CHECKPOINTS, "metrics.jsonl") if (folder / name).exists()]:
            raise InputError(f"{named(folder)}: holds {left[0]} but no {CONFIG}; put it back, or name another run_dir")
        write_text(folder / CONFIG, _kept(config))
        return
    begun, saved = has_checkpoint(folder), saved_config(folder)
    same = check_same(folder, saved, config, _may_differ(saved, config), begun)
    if not same:
        (folder / TRACKERS).unlink(missing_ok=True)  # it is another run
    if not begun:
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)  # perhaps of other data than there are now
        write_text(folder / CONFIG, _kept(config))


def _kept(config: Config) -> str:
    return dump_config(dataclasses.replace(placed(config, Path()), run_dir=asked_name(config.run_dir)))


def check_same(folder: Path, saved: object, config: object, may_differ: Collection[str], begun: bool) -> bool:
    """Whether a folder of results holds those of this config.

    Args:
        folder: A run's or an experiment's.
        saved: The config that it was made with.
        config: The one that is to go on in it.
        may_differ: Fields that are not compared.
        begun: Whether there is anything to lose.

    Raises:
        InputError: It has begun with another config.
    """
    rows = config_differences(saved, config, may_differ)
    if rows and begun:
        raise InputError(
            f"{named(folder)}: holds results of another config ({listed(map(shown, rows), 2)}); "
            "choose another run_dir, or give the same values to go on"
        )
    return not rows


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has anything to lose."""
    # A checkpoint is named by its step; one that was cut off while it was written bears another name.
    stages = (folder, folder / FIRST_STAGE)
    return any(path.name.isdecimal() for stage in stages for path in (stage / CHECKPOINTS).glob("*"))


def _may_differ(saved: Config, config: Config) -> list[str]:
    """Fields in which these two may differ: what a run is made from may lie elsewhere now, but not come or go."""
    names = {
        "model.pretrained": (saved.model.pretrained, config.model.pretrained),
        "lora.adapter": (saved.lora.adapter, config.lora.adapter),
    }
    return [name for name in MAY_DIFFER if None not in names.get(name, ())]
