"""Errors that the user can fix, and what a command says of any error when it ends."""

import errno
import os


class InputError(Exception):
    """Wrong input. The message is one line: what is wrong, where it stands, and what to do about it.

    It names fields and arguments as they are called everywhere. How the command line writes them is its `usage`, which
    commands alone show.
    """

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage


class CommandDone(SystemExit):
    """What `--help` and `--version` end with, where any other `SystemExit` is an error of the code that raised it."""


class RunFailed(RuntimeError):
    """Right input, and the work failed all the same; the message is one line as `InputError`'s."""


def explain(error: BaseException) -> tuple[int, str | None]:
    """The exit status of a command that ends with an error, and the line that tells it.

    Args:
        error: What the command ended with.

    Returns:
        2 where the input or the machine must change first, else 1; the line is None where only a traceback helps.
    """
    line = " ".join(str(error).split())  # one line, whatever a library's own message brought in
    if isinstance(error, InputError):
        return 2, f"{line}: {error.usage}" if error.usage else line
    if remedy := machine_remedy(error):
        return 2, f"{line[:200] or type(error).__name__}; {remedy}"
    if isinstance(error, RunFailed):
        return 1, line
    if any(words in line for words in _LOST):
        return 1, f"{line[:200]}; another process of the job has ended: see its error, then start all of them again"
    return 1, None


def cannot_write(what: object, error: Exception, then: str = "or choose another folder") -> InputError:
    """The error of a file or folder that could not be written.

    Args:
        what: Its path, or what errors call it.
        error: What whoever wrote it raised.
        then: What to do besides freeing space.
    """
    return InputError(f"cannot write {what}: {reason(error)}; free space, {then}")


def reason(error: Exception) -> str:
    """Why a library failed, in one line: what the system says, else how the library's own message begins."""
    message = full_disk(error) or (error.strerror if isinstance(error, OSError) else None)
    return message or (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# How libraries that connect processes tell that one is no longer there.
_LOST = ("Gloo", "NCCL", "another task died", "heartbeat timeout")
# What the system says of a full disk, in an `OSError` or in the text of a library's own error.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What it says of a file that is not what it should be, or may not be used.
_UNUSABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOTEMPTY, errno.EIO, errno.ESTALE, errno.ENXIO),
)


def full_disk(error: BaseException) -> str | None:
    """The system's words where the disk is full or a quota used up; else None."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return error.strerror
    return next((words for words in map(os.strerror, _FULL) if words in str(error)), None)


def machine_remedy(error: BaseException) -> str | None:
    """What to do about a machine that does not suffice, wherever that shows; None for other failures."""
    if full_disk(error):  # before memory: some libraries call both resources that are exhausted
        return "free space, then start the same command again"
    # JAX's own error for memory is recognised by its text.
    scarce = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if scarce or any(text in str(error) for text in ("RESOURCE_EXHAUSTED", "Out of memory")):
        return (
            "lower train.batch_size, train.sequence_length or evaluation.batch_size, take more devices or a smaller "
            "model; `python -m fit_jax.plan` tells what fits"
        )
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE, errno.EAGAIN) or "can't start new thread" in str(error):
        return "end other programs, or raise the limits of this one (`ulimit -n`, `ulimit -u`, memory)"
    # What a file system says that is no longer there; sockets, which name no file, say it too.
    gone = number in (errno.ENOTCONN, errno.ETIMEDOUT) and isinstance(error, OSError) and error.filename is not None
    if gone or number in _UNUSABLE:
        return "make it a file or folder that may be read and written, or name another"
    return None
