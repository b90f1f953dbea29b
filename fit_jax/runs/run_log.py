"""`log.txt` of a run folder: what libraries say while a command works there; the user's terminal stays plain."""

import io
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from fit_jax.errors import InputError
from fit_jax.foreign import named


@contextmanager
def logged(path: Path, title: str) -> Iterator[None]:
    """Sends to a file what is logged or written to standard error meanwhile, and how an error came about.

    The error itself goes on, and is reported to the user by the command's frame (`fit_jax.cli`).

    Args:
        path: The file; lines are appended.
        title: The line that begins this command's part.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        file = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{named(path)}: cannot be written ({error.strerror}); move it away") from error
    log = _Log(file, sys.stderr)
    root, terminal = logging.getLogger(), sys.stderr
    handlers = root.handlers[:]
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.handlers[:] = [handler]
    sys.stderr = log
    log.write(f"{time.strftime('%F %T')} {title}\n")
    try:
        yield
    except BaseException:
        log.write(traceback.format_exc())
        raise
    finally:
        if sys.stderr is log:
            sys.stderr = terminal
        root.handlers[:] = handlers
        log.end()


class _Log(io.TextIOBase):
    """A text file that takes what it can: a full disk must not fail whoever writes a remark."""

    def __init__(self, file: io.TextIOWrapper, terminal: TextIO) -> None:
        self._file = file
        self._terminal = terminal

    def write(self, text: str) -> int:
        """Appends a text; a progress bar, which overwrites its line, is shown on a terminal or not at all."""
        with suppress(OSError, ValueError):
            if "\r" not in text:
                self._file.write(text)
            elif self._terminal.isatty():
                self._terminal.write(text)
        return len(text)

    def flush(self) -> None:
        """Passes on what was written."""
        with suppress(OSError, ValueError):
            self._file.flush()

    def fileno(self) -> int:
        """The file's."""
        return self._file.fileno()

    def end(self) -> None:
        """Closes the file; what libraries write later is lost."""
        with suppress(OSError):
            self._file.close()
