"""Files and values that others wrote: each is read as the one kind of value it must be, within bounds, or refused.

A value of another kind, a number out of bounds, text that is no text, a path that is no regular file: every one ends
in an `InputError` that names the file and the field. Nothing else comes out of this module.
"""

import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from fit_jax.errors import InputError

Name = TypeVar("Name", bound=str)

# Configs, indexes and tokenizers are far smaller.
MOST_BYTES = 1 << 28
_SHOWN = 60
_LONGEST_PATH = 64
# Control characters but line feed and tab, and those that turn the direction of writing or stand for nothing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def shown(value: Any) -> str:
    """A value as an error message shows it: on one line, cut where it is long, without control characters."""
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of many digits"
    text = printable(value if isinstance(value, str) else _represented(value)).replace("\n", "\\n")
    return f"{text[:_SHOWN]}..." if len(text) > _SHOWN else text


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey: control characters are written out, as in `\u001b`."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_text(text: str) -> bool:
    """Whether every file and every program takes the text: it holds neither NUL nor half of a surrogate pair."""
    return not _NO_TEXT.search(text)


def exists(path: Path) -> bool:
    """Whether the path is there; False for names that no file can have."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def check_regular(path: Path, remedy: str = "name a readable file") -> None:
    """Checks that a file can be opened for reading and will end: a pipe, a device or a socket never may.

    Raises:
        InputError: There is none, or it is no regular file.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or "no file can have that name"
        raise InputError(f"{named(path)} cannot be read: {reason}; {remedy}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{named(path)} cannot be read: is a folder; {remedy}")
    if not stat.S_ISREG(mode):
        raise InputError(f"{named(path)} cannot be read: is a pipe, device or socket, not a regular file; {remedy}")


def is_installed(package: str) -> bool:
    """Whether a package can be imported; a folder of its name, as some packages make where they work, is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None


@contextmanager
def silent() -> Iterator[None]:
    """Lets what foreign code writes to standard error meanwhile go nowhere, also where Python is not asked."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()  # what is left of a line would follow later
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def read_bytes(path: Path, remedy: str = "name a readable file", most: int = MOST_BYTES) -> bytes:
    """What a regular file of bounded size holds.

    Raises:
        InputError: It is missing, unreadable, no regular file, or larger than `most` bytes.
    """
    check_regular(path, remedy)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}; {remedy}") from error
    if len(content) > most:
        raise InputError(f"{named(path)}: is larger than {most} bytes, which no such file is; {remedy}")
    return content


def read_text(path: Path, remedy: str = "name a readable file", most: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file; errors as `read_bytes`, or it is no UTF-8."""
    try:
        return read_bytes(path, remedy, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{named(path)}: no UTF-8 text at byte {error.start}; save it as UTF-8, or {remedy}"
        ) from error


def parse_json(text: str) -> Any:
    """The value that a JSON text gives.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_object(path: Path, remedy: str = "fetch the file again") -> "Fields":
    """The fields of the JSON object that a file holds.

    Raises:
        InputError: The file cannot be read, or is no JSON object.
    """
    try:
        content = parse_json(read_text(path, remedy))
    except ValueError as error:
        raise InputError(f"{named(path)}: no JSON ({shown(str(error))}); {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{named(path)}: holds a JSON {type(content).__name__}, not an object; {remedy}")
    return Fields(content, named(path), remedy)


def read_records(path: Path, remedy: str) -> list[dict[str, Any]]:
    """The JSON objects of a file that holds one a line, however many.

    Raises:
        InputError: The file cannot be read, or a line is no JSON object.
    """
    check_regular(path, remedy)
    records = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                record = parse_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(record, dict):
                    raise ValueError(f"a {type(record).__name__}, no object")
                records.append(record)
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}; {remedy}") from error
    except ValueError as error:  # no UTF-8, or no JSON
        where = f"{named(path)}, line {len(records) + 1}"
        raise InputError(f"{where}: no JSON object ({shown(str(error))}); {remedy}") from error
    return records


class Fields:
    """The fields of a mapping that others wrote, each asked for as what it must be.

    A field that is absent or null gives `default`, or an error where there is none.

    Attributes:
        values: The mapping as it was read.
        where: What errors name it by.
    """

    def __init__(self, values: Mapping[str, Any], where: str, remedy: str = "fetch the file again") -> None:
        self.values = values
        self.where = where
        self._remedy = remedy

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """An integer from `low` to `high`."""
        value = self._given(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, value, f"no integer from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number above `low`, and `high` at most."""
        value = self._given(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low < value <= high:
            raise self.error(name, value, f"no number above {low:g} and up to {high:g}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._given(name, default)
        if not isinstance(value, bool):
            raise self.error(name, value, "neither true nor false")
        return value

    def choice(self, name: str, known: Iterable[Name], default: Name | None = None) -> Name:
        """One of the names that are known."""
        value, names = self._given(name, default), list(known)
        if value not in names:
            known_names = ", ".join(names)
            where = f"{self.where}: {name} {quoted(value)}"
            raise InputError(f"{where} is not supported; supported: {known_names}, or {self._remedy}")
        return names[names.index(value)]

    def section(self, name: str) -> "Fields | None":
        """The fields of an object; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(name, value, "no object of fields")
        return Fields(value, f"{self.where}: {name}", self._remedy)

    def texts(self, name: str) -> list[str] | None:
        """A list of texts; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(name, value, "no list of texts")
        return value

    def numbers(self, name: str, low: float, high: float) -> tuple[float, ...] | None:
        """A list of finite numbers above `low`, and `high` at most; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(name, value, "no list of numbers")
        fields = Fields({f"{name}[{place}]": item for place, item in enumerate(value)}, self.where, self._remedy)
        return tuple(fields.number(place, low, high) for place in fields.values)

    def flags(self, name: str) -> list[bool] | None:
        """A list of zeros and ones; None where there is none."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, int) and item in (0, 1) for item in value):
            raise self.error(name, value, "no list of zeros and ones")
        return [bool(item) for item in value]

    def error(self, name: str, value: Any, problem: str) -> InputError:
        """The error of a field's value."""
        return InputError(f"{self.where}: {name} {quoted(value)} is {problem}; {self._remedy}")

    def _given(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"{self.where}: lacks {name}; {self._remedy}")
        return value


def quoted(value: Any) -> str:
    """A value as `shown`, text in quotes."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def named(path: str | Path) -> str:
    """A path, of which the end is shown where it is long."""
    name = printable(str(path))
    return name if len(name) <= _LONGEST_PATH else f"...{name[-_LONGEST_PATH:]}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for an error message, at most so many of them."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _represented(value: Any) -> str:
    try:
        return repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits in it
        return f"a {type(value).__name__}"
