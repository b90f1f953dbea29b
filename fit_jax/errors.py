"""Errors that the user can fix, and the frame every door runs in."""

import errno
import os
import sys
import traceback
from collections.abc import Callable

EXIT_INPUT = 2


class InputError(Exception):
    """Wrong input. The message is one line: what is wrong, where it stands, and what to do about it."""


def run_command(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command-line door and ends the process with its exit status.

    `InputError`, and memory or a disk that do not suffice, end with status 2 and one line on standard error; any other
    failure ends with status 1 and a traceback. `--debug` anywhere on the command line shows the traceback of all.

    Args:
        main: The door's body. Takes the command line without the program's name and `--debug`; returns the exit
            status, where None means 0.
    """
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        status = main(arguments) or 0
        sys.stdout.flush()
    except InputError as error:
        if debug:
            traceback.print_exc()
        print("error:", *str(error).split(), file=sys.stderr)  # one line, whatever a library's own message brought in
        status = EXIT_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of our output (`| head`) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        remedy = machine_remedy(error)
        if remedy is None:
            raise
        if debug:
            traceback.print_exc()
        print("error:", " ".join(str(error).split())[:200] + ";", remedy, file=sys.stderr)
        status = EXIT_INPUT
    sys.exit(status)


def machine_remedy(error: Exception) -> str | None:
    """What to do about a machine that does not suffice, wherever that shows; None for other failures."""
    # JAX's own error for memory is told by its text.
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return (
            "take fewer or shorter rows in a batch, more devices or a smaller model; `python -m fit_jax.plan` tells "
            "what fits"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free space, then start the same command again"
    return None
