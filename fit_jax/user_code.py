"""Code of the user's own, called so that whatever it does ends in an error of this package and not the process."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fit_jax.errors import InputError
from fit_jax.foreign import shown


class _ExitCalled(BaseException):
    """The user's code tried to end the process."""


@contextmanager
def guarded(what: str, remedy: str, row: Mapping[str, object] | None = None) -> Iterator[None]:
    """Turns whatever the code within raises into an `InputError`; Ctrl-C and errors of this package pass.

    `os._exit`, which would end the process without a word, raises too.

    Args:
        what: What failed, the beginning of the error.
        remedy: What to do about it.
        row: Of the user's data, on which it is called.
    """

    def refuse(status: int) -> None:
        raise _ExitCalled(f"os._exit({status}) was called")

    kept, os._exit = os._exit, refuse  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    except (KeyboardInterrupt, InputError):
        raise
    except BaseException as error:
        where = "" if row is None else f" on the row {shown(row)}"
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
