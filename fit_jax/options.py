"""Options of commands: argparse that says what was meant, and the fields of a config as options."""

import argparse
import difflib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import draccus
import yaml

from fit_jax.errors import CommandDone, InputError
from fit_jax.files import check_folder_name, there_already
from fit_jax.foreign import exists, named, printable, shown


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that a wrong one is closest to, or at all of them where they are few."""
    known = list(known)
    last = [full for full in known if full.rpartition(".")[2] == name.lstrip("-")]  # `--splits` of `evaluation.splits`
    near = difflib.get_close_matches(name, known, 1, 0.9) or last or difflib.get_close_matches(name, known, 1)
    if near:
        return f"did you mean {near[0]!r}?"
    names = ", ".join(map(shown, known))
    return f"known here: {names}" if len(names) <= 100 and len(name) <= 40 else "--help lists what there is"


class Parser(argparse.ArgumentParser):
    """Raises what it refuses as `InputError`, and names what may have been meant.

    An option may be given once, but where its action is to append.
    """

    def __init__(self, **settings: Any) -> None:
        about = "`--debug` anywhere shows the traceback of an error besides its line."
        shape = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=shape, epilog=about, **settings)
        self.register("action", None, _StoreOnce)
        self._commands: Mapping[str, Parser] = {}

    def add_subparsers(self, **settings: Any) -> Any:
        """As argparse's; remembers the commands."""
        added = super().add_subparsers(metavar="COMMAND", required=True, **settings)
        self._commands = added.choices
        return added

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  (the stubs overload it)
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, which calls it for each command too, but all arguments must be known."""
        arguments = self._joined(sys.argv[1:] if args is None else args)
        first = arguments[0] if arguments else "-"
        if self._commands and first not in self._commands and not first.startswith("-"):
            raise InputError(f"{self.prog}: there is no command {shown(first)!r}; {nearest(first, self._commands)}")
        for argument in arguments if not self._commands else ():
            option = argument.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                hint = nearest(option, self._option_string_actions)
                raise InputError(f"{shown(option)}: there is no such option; {hint}")
        given, rest = super().parse_known_args(arguments, namespace)
        if rest:
            raise InputError(f"unexpected argument {shown(rest[0])!r}: options are --NAME VALUE; --help lists them")
        return given, rest

    def exit(self, status: int = 0, message: str | None = None) -> Any:
        """As argparse's, for `--help` and `--version`."""
        raise CommandDone(status)

    def error(self, message: str) -> Any:
        """As argparse's, but raises."""
        raise InputError(f"{printable(message)[:150]}; see --help")

    def _joined(self, arguments: Iterable[str]) -> list[str]:
        """The arguments with `--name value` as `--name=value`, whose value may begin with a dash."""
        options = self._option_string_actions
        joined: list[str] = []
        takes_value = False
        for argument in arguments:
            if takes_value and argument not in options:
                joined[-1] += f"={argument}"
                takes_value = False
            else:
                joined.append(argument)
                takes_value = argument in options and options[argument].nargs != 0
        return joined


class _StoreOnce(argparse.Action):
    """Keeps a value, and refuses a second one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        if getattr(namespace, self.dest, self.default) is not self.default:
            raise InputError(f"{option_string} is given twice; give it once")
        setattr(namespace, self.dest, values)


class _ConfigOption(argparse.Action):
    """Keeps `--config FILE` and `--section.field VALUE` in their order."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        namespace.config = [*namespace.config, f"{option_string}={values}"]


def add_fields(
    parser: Parser, cls: type, shown: Collection[str] | None = None, hidden: Collection[str] = (), file: bool = True
) -> None:
    """Adds `--config FILE` and every field of a config as options, kept in their order as the list `config`.

    Args:
        parser: What they are added to.
        cls: The config.
        shown: Dotted names of the fields and sections that `--help` lists; None means all.
        hidden: Of those, the ones that it does not.
        file: Whether the parser takes `--config`.
    """
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    parser.usage = f"{usage} [--section.field VALUE]...".replace("%", "%%")
    parser.set_defaults(config=[])
    if file:
        about = "YAML file of the fields below, or the name of one that comes with fit_jax, such as `demo`; may be "
        about += "repeated, and a later option wins over an earlier one"
        parser.add_argument("--config", metavar="FILE", action=_ConfigOption, help=about, default=argparse.SUPPRESS)
    _add_section(parser, cls, "", shown, hidden)


def _add_section(
    parser: Parser, cls: type, prefix: str, shown: Collection[str] | None, hidden: Collection[str]
) -> None:
    own = [f for f in fields(cls) if not is_dataclass(f.type)]
    listed = {f.name for f in own if f"{prefix}{f.name}" not in hidden and _is_in(f"{prefix}{f.name}", shown)}
    title, about = (prefix.rstrip(".") or "config", (cls.__doc__ or "").partition("\n")[0]) if listed else (None, None)
    group = parser.add_argument_group(title, about)
    for f in own:
        group.add_argument(
            f"--{prefix}{f.name}",
            metavar=_kind(f.type),
            action=_ConfigOption,
            default=argparse.SUPPRESS,
            help=_about(cls, f) if f.name in listed else argparse.SUPPRESS,
        )
    for f in fields(cls):
        if isinstance(f.type, type) and is_dataclass(f.type):
            _add_section(parser, f.type, f"{prefix}{f.name}.", shown, hidden)


def _is_in(name: str, shown: Collection[str] | None) -> bool:
    """Whether a field, or a section that it stands in, is among the dotted names."""
    parts = name.split(".")
    return shown is None or any(".".join(parts[:end]) in shown for end in range(1, len(parts) + 1))


class FieldText(NamedTuple):
    """A field of a config in words: its type as it is written, what it means, its default as YAML if there is one."""

    name: str
    kind: str
    about: str
    default: str | None


def field_texts(cls: type) -> list[FieldText]:
    """The fields of a dataclass, each with the comment above it in the source."""
    return [_field_text(cls, f) for f in fields(cls)]


def _field_text(cls: type, f: Field[Any]) -> FieldText:
    above = re.search(rf"((?:^    # .*\n)*)^    {f.name}:", _source(cls), re.MULTILINE)
    about = " ".join(re.findall(r"# (.*)", above[1])) if above else ""
    if f.default is MISSING and f.default_factory is MISSING:
        return FieldText(f.name, _kind(f.type), about, None)
    default = f.default if f.default_factory is MISSING else f.default_factory()
    shown = yaml.safe_dump(draccus.encode(default), default_flow_style=True, width=2**20, sort_keys=False)
    return FieldText(f.name, _kind(f.type), about, shown.removesuffix("..." + chr(10)).strip())


def _about(cls: type, f: Field[Any]) -> str:
    """The comment above a field, and its default as YAML."""
    text = _field_text(cls, f)
    about = text.about if text.default is None else f"{text.about} (default: {text.default})"
    return about.replace("%", "%%")


@functools.cache
def _source(cls: type) -> str:
    return "".join(inspect.getsource(c) for c in cls.__mro__ if is_dataclass(c))  # a field may stand in a base


def _kind(kind: Any) -> str:
    """A type as the value of an option is written."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return f"[{_kind(inner[0])},...]"
    if origin is dict:
        return f"{{{_kind(inner[0])}:{_kind(inner[1])},...}}"
    if inner:
        return "|".join(map(_kind, inner))
    return {NoneType: "null", str: "text", bool: "true|false"}.get(kind, getattr(kind, "__name__", str(kind)))


def add_checkpoint(parser: Parser) -> None:
    """`--checkpoint`: best, last, or a step."""

    def which(text: str) -> int | str:
        if text in ("best", "last"):
            return text
        if text.isdecimal():
            return int(text)
        raise InputError(f"--checkpoint {shown(text)!r}: write best, last or the number of a step")

    about = "best (by validation, the default), last, or the number of a step"
    parser.add_argument("--checkpoint", metavar="WHICH", help=about, type=which, default="best")


def add_changed_inputs(parser: Parser) -> None:
    """`--changed_inputs`: whether a run may go on with other data, tokenizer or weights than it was made from."""
    about = "where the run's data, tokenizer or base model are no longer those it was made from: refuse (the default) "
    about += "or accept, and go on with what is there now"
    parser.add_argument(
        "--changed_inputs", metavar="refuse|accept", help=about, choices=("refuse", "accept"), default="refuse"
    )


def add_trust_code(parser: Parser) -> None:
    """`--trust_code`: whether Python code that a run folder names may run."""
    about = "run the Python functions that the description of the run's data names, where RUN does not keep the "
    about += "examples that are evaluated; without it no code that RUN names runs"
    parser.add_argument("--trust_code", action="store_true", help=about)


def new_folder(option: str) -> Callable[[str], Path]:
    """Reads an option's value as the name of a folder to write to, which may be there.

    Args:
        option: What errors name it by; what is returned raises an `InputError` as `check_folder_name`.
    """

    def read(text: str) -> Path:
        check_folder_name(text, option)
        return Path(text)

    return read


def new_file(option: str) -> Callable[[str], Path]:
    """Reads an option's value as the name of a file to write.

    Args:
        option: As `new_folder`'s; it is an error too if the file is there already, or its folder is not.
    """

    def read(text: str) -> Path:
        path = new_folder(option)(text)
        if exists(path):
            raise there_already(path)
        if not exists(path.parent) or not path.parent.is_dir():
            raise InputError(f"{option} {named(text)}: {named(path.parent)} is no folder; choose one that exists")
        return path

    return read
