"""Code of the user's own, called so that whatever it does ends in an error of this package and not the process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fit_jax.errors import InputError, RunFailed, full_disk
from fit_jax.foreign import shown
from fit_jax.signals import Terminated

# Characters of a row that a line has room for, beside a feature's names and an error's text.
_OF_ROW = 24


class _ExitCalled(BaseException):
    """The user's code tried to end the process."""


@contextmanager
def guarded(what: str, remedy: str, row: Mapping[str, object] | None = None) -> Iterator[None]:
    """Turns whatever the code within raises into an `InputError`.

    Signals, errors of this package and those of a machine without room pass.

    `os._exit`, which would end the process without a word, raises too.

    Args:
        what: What failed, the beginning of the error.
        remedy: What to do about it.
        row: Of the user's data, on which it is called.
    """

    process = os.getpid()

    def refuse(status: int) -> None:
        if os.getpid() != process:  # a child, which the user's code may start and end
            kept(status)
        raise _ExitCalled(f"os._exit({status}) was called")

    kept, os._exit = os._exit, refuse  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    except (KeyboardInterrupt, Terminated, InputError, RunFailed, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, OSError) and full_disk(error):
            raise
        beginning = shown(row)
        if len(beginning) > _OF_ROW:
            beginning = f"{beginning[:_OF_ROW]}..."
        where = "" if row is None else f" on the row {beginning}"
        raise InputError(f"{what} ({_reason(error)}){where}; {remedy}") from error
    finally:
        os._exit = kept


def _reason(error: BaseException) -> str:
    try:
        return shown(" ".join(f"{type(error).__name__}: {error}".split()))
    except KeyboardInterrupt:
        raise
    except BaseException:  # its text is the user's code, too
        return type(error).__name__
