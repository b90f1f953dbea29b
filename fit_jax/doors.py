"""Options of the doors that are no config fields."""

from pathlib import Path
from typing import Literal

from fit_jax.errors import InputError


def split_folder(arguments: list[str], usage: str, about: str) -> tuple[str, list[str]]:
    """The run's folder, which stands first, and the rest; `--help` prints the usage and what it means, and ends.

    Raises:
        InputError: There is none.
    """
    if {"--help", "-h"} & set(arguments):
        print(f"usage: {usage}\n\n{about.rstrip()}")
        raise SystemExit(0)
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"name the folder of a run first: {usage}")
    return arguments[0], arguments[1:]


def take_option(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of `--name value` or `--name=value`, and the arguments without it; None where it is not given.

    Raises:
        InputError: It has no value, or is given twice.
    """
    values, rest = take_options(arguments, name)
    if len(values) > 1:
        raise InputError(f"--{name} is given {len(values)} times; give it once")
    return (values[0] if values else None), rest


def take_options(arguments: list[str], name: str) -> tuple[list[str], list[str]]:
    """As `take_option` for an option that may be repeated: all its values."""
    values, rest = [], []
    following = iter(arguments)
    for argument in following:
        if argument == f"--{name}":
            value = next(following, None)
            if value is None:
                raise InputError(f"--{name} needs a value")
            values.append(value)
        elif argument.startswith(f"--{name}="):
            values.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return values, rest


def take_flag(arguments: list[str], name: str) -> tuple[bool, list[str]]:
    """Whether `--name` is given, and the arguments without it."""
    rest = [argument for argument in arguments if argument != f"--{name}"]
    return len(rest) < len(arguments), rest


def new_file(text: str | None, option: str) -> Path | None:
    """The file that an option asks to write, if it is given.

    Raises:
        InputError: It is there already, or its folder is not.
    """
    if text is None:
        return None
    path = Path(text)
    if path.exists():
        raise InputError(f"{option} {path}: is there already; nothing is overwritten, choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: {path.parent} is no folder; choose one that exists")
    return path


def checkpoint_option(text: str | None) -> int | Literal["best", "last"]:
    """Reads `--checkpoint`: best (the default), last, or a step.

    Raises:
        InputError: It is neither.
    """
    if text is None or text == "best":
        return "best"
    if text == "last":
        return "last"
    if text.isdecimal():
        return int(text)
    raise InputError(f"--checkpoint {text!r}: write best, last or the number of a step")
