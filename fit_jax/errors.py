"""Errors that the user can fix, and what a command says of any error when it ends."""

import errno


class InputError(Exception):
    """Wrong input. The message is one line: what is wrong, where it stands, and what to do about it."""


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
        return 2, line
    if remedy := machine_remedy(error):
        return 2, f"{line[:200] or type(error).__name__}; {remedy}"
    if isinstance(error, RunFailed):
        return 1, line
    return 1, None


def machine_remedy(error: BaseException) -> str | None:
    """What to do about a machine that does not suffice, wherever that shows; None for other failures."""
    # JAX's own error for memory is told by its text.
    if isinstance(error, MemoryError) or any(text in str(error) for text in ("RESOURCE_EXHAUSTED", "Out of memory")):
        return (
            "take fewer or shorter rows in a batch, more devices or a smaller model; `python -m fit_jax.plan` tells "
            "what fits"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free space, then start the same command again"
    return None
