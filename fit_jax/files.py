"""Files that are there whole or not at all, whatever moment the process or the machine stops."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fit_jax.errors import InputError


def make_folder(folder: Path) -> None:
    """Creates a folder for results and checks that files can be written in it.

    Raises:
        InputError: It cannot be created or written to.
    """
    probe = folder / f".probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose a writable folder") from error


def replace_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place in one step, safely on the disk.

    Raises:
        InputError: The disk is full, or the file may not be written.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write(partial)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free space, or choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    replace_with(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _sync(path: Path) -> None:
    """Waits until the disk holds what was written to a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
