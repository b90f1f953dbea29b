"""Errors that the user can mend, and the frame every door runs in."""

import os
import sys
import traceback
from collections.abc import Callable

EXIT_INPUT = 2


class InputError(Exception):
    """Wrong input. The message is one line: what is wrong, where it stands, and what to do about it."""


def run_door(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command-line door and ends the process with its exit status.

    `InputError` ends with status 2 and its one line on standard error; any other failure ends with status 1 and a
    traceback. `--debug` anywhere on the command line shows the traceback of an `InputError` too.

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
    sys.exit(status)
