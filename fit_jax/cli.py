"""The command `fit-jax`, and the frame in which every command runs: its arguments, its errors, its exit status."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from signal import SIGINT
from typing import TYPE_CHECKING, NoReturn

from fit_jax import signals
from fit_jax.errors import CommandDone, explain
from fit_jax.foreign import printable

if TYPE_CHECKING:
    from fit_jax.options import Parser  # which takes long to import: not before a command listens to signals

# Each command with its module, which is also run as `python -m MODULE`, and what it does.
COMMANDS = {
    "train": ("fit_jax.train", "train a model, go on with a run, evaluate and report"),
    "evaluate": ("fit_jax.evaluate", "evaluate a trained model again, or measure the language model before and after"),
    "steer": ("fit_jax.steer", "ask a trained model one text under each focus instruction"),
    "playground": ("fit_jax.playground.__main__", "a web page to ask, compare and trick trained models"),
    "data": ("fit_jax.data.__main__", "describe, build, inspect and audit data sets"),
    "experiment": ("fit_jax.experiment.__main__", "methods x seeds on one task, with statistics"),
    "convert": ("fit_jax.convert", "bring models in and out, and check them"),
    "push": ("fit_jax.push", "push a trained model to the Hugging Face hub"),
    "plan": ("fit_jax.plan", "whether a run fits a machine, how fast it is and what it costs"),
}


def _starts_here() -> bool:
    """Whether the process was started as one of the commands, and this module is not imported for something else."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = spec.name if spec else os.path.basename(sys.argv[0] if sys.argv else "")
    return name == "fit-jax" or name in {module for module, _ in COMMANDS.values()}


if _starts_here():
    signals.end_at_once()  # nothing has to be cleaned up during the imports that follow


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs a command and ends the process with its exit status, in one process as in each of many.

    What `explain` can tell ends in one line on standard error, with status 2 where input or machine must change and
    1 where the work failed; any other error with a traceback and status 1. `--debug` anywhere on the command line
    shows the traceback of all. Ctrl-C ends with status 130 and SIGTERM with 143, and a line.

    Args:
        main: The command. Takes the command line without the program's name and `--debug`; returns the exit status,
            where None means 0.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started the process; no file may take its number
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open until the end)
    signals.listen()
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        try:
            status = main(arguments) or 0
        except CommandDone as end:
            status = end.code or 0
        sys.stdout.flush()
        signals.check()
    except BaseException as error:
        status, message = _report(error, debug)
        # A normal exit would wait for the other processes of a job, who may be waiting for this one, and would let
        # libraries tell at length what else has failed since.
        for stream, text in ((sys.stdout, ""), (sys.stderr, message)):
            with suppress(OSError):  # nobody may be there to read it
                stream.write(text)
                stream.flush()
        os._exit(status)
    signals.end_at_once()
    sys.exit(status)


def _report(error: BaseException, debug: bool) -> tuple[int, str]:
    """The exit status that an error stands for, and what is said of it."""
    signal = signals.received()
    if signal is None and isinstance(error, KeyboardInterrupt):
        signal = SIGINT
    trace = "".join(traceback.format_exception(error))
    if signal is not None:  # whatever a library has made of it
        return 128 + signal, f"{trace if debug else ''}{signals.words(signal)}\n"
    if isinstance(error, BrokenPipeError):  # the reader of our output (`| head`) has gone
        return 141, ""
    status, line = explain(error)
    place = _place_in_job()
    message = trace if debug or line is None else ""
    if line is None and place:  # the lines of all processes run together
        line = " ".join(str(error).split()) or type(error).__name__
    return status, message if line is None else f"{message}error: {place}{printable(line)}\n"


def _place_in_job() -> str:
    """Which process of a job of several this is, as the beginning of a line; empty where it is the only one."""
    processes = sys.modules.get("fit_jax.parallel.processes")
    return processes.place_in_job() if processes else ""


def execute(name: str, about: str | None, add_options: "Callable[[Parser], None]", arguments: list[str]) -> int | None:
    """Parses a command line and carries it out.

    Args:
        name: What `--help` calls the program.
        about: What `--help` says before the options.
        add_options: Adds them, and as `run` the function that carries the command out.
        arguments: The command line without the program's name.

    Raises:
        InputError: There is no such option, or it has a wrong value.
    """
    from fit_jax.options import Parser

    parser = Parser(prog=name, description=about)
    add_options(parser)
    given = parser.parse_args(arguments)
    return given.run(given)


def main() -> NoReturn:
    """`fit-jax COMMAND ...`."""
    run(_choose)


def _choose(arguments: list[str]) -> int | None:
    from importlib.metadata import version

    from fit_jax.options import Parser

    parser = Parser(prog="fit-jax", description="Focus instruction tuning of language models in JAX.")
    parser.add_argument("--version", action="version", version=f"fit_jax {version('fit_jax')}")
    commands = parser.add_subparsers(title="commands")
    completing = "_ARGCOMPLETE" in os.environ  # a shell asks what may come next
    for name, (module_name, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about)
        if completing or name in arguments[:1]:
            module = importlib.import_module(module_name)
            command.description = module.__doc__
            module.add_options(command)
    if completing:
        import argcomplete

        argcomplete.autocomplete(parser)
    given = parser.parse_args(arguments)
    return given.run(given)
