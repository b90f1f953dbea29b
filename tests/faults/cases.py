"""A case: the files of a bad input and what is done with them, so that it can be kept and done again."""

import base64
import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fit_jax.errors import explain
from fit_jax.foreign import printable

# Places in which no regular file stands, by the name that a case gives them.
SPECIAL: Mapping[str, Callable[[Path], object]] = {
    "@pipe": os.mkfifo,
    "@folder": Path.mkdir,
    "@loop": lambda path: path.symlink_to(path.name),
    "@zero": lambda path: path.symlink_to("/dev/zero"),
    "@dangling": lambda path: path.symlink_to("nowhere"),
}
# Seconds of computing, and of waiting, that no bad input may take.
CPU_SECONDS, WALL_SECONDS = 20, 90
MEMORY = 12 << 30
# What is wrong, and where, fits in so many characters; the remedy comes after.
LONGEST = 200


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        target: What is done with it, by its name in `parsers.TARGETS`.
        files: Content by name within an empty folder; text that begins with `@` names a kind of `SPECIAL`.
        arguments: What the target takes besides.
    """

    target: str
    files: Mapping[str, bytes | str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For `from_json`."""
        files = {
            name: content if isinstance(content, str) else {"base64": base64.b64encode(content).decode()}
            for name, content in self.files.items()
        }
        return json.dumps({"target": self.target, "files": files, "arguments": self.arguments}, indent=1) + "\n"

    @classmethod
    def from_json(cls, written: str) -> "Case":
        """Reads what `to_json` gave."""
        stored = json.loads(written)
        files = {
            name: content if isinstance(content, str) else base64.b64decode(content["base64"])
            for name, content in stored["files"].items()
        }
        return cls(stored["target"], files, tuple(stored["arguments"]))

    def write(self, folder: Path) -> None:
        """Puts the files into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                SPECIAL[content](path)
            else:
                path.write_bytes(content)


class Target(NamedTuple):
    """A parser: how it is called in a folder of its files, and how a bad input for it is drawn."""

    act: Callable[..., object]
    draw: Callable[[Random], tuple[Mapping[str, bytes | str], tuple[str, ...]]]


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `accepted`, `refused` as promised, or anything else, which is a failure.

    Attributes:
        kind: One of these two, `endless`, `long` (the line), or the name of the exception.
        line: What was said.
    """

    kind: str
    line: str = ""

    @property
    def promised(self) -> bool:
        """Whether it is one that the commands promise."""
        return self.kind in ("accepted", "refused")


class TooLong(BaseException):
    """More time was spent than a bad input is worth."""


def outcome(case: Case, act: Callable[..., object], seconds: float = CPU_SECONDS) -> Outcome:
    """Does what the case says, in a folder of its own that is the working folder meanwhile.

    Args:
        case: The bad input.
        act: Does it.
        seconds: Of computing, that it may take.
    """
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        case.write(Path(folder))
        os.chdir(folder)
        started = time.process_time()
        try:
            with limited(seconds):
                act(*case.arguments)
        except TooLong:
            found = Outcome("endless")
        except SystemExit as end:
            found = Outcome("accepted" if not end.code else "SystemExit")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            found = _judged(error)
        else:
            found = Outcome("accepted")
        finally:
            os.chdir(before)
    return Outcome("endless", found.line) if time.process_time() - started > seconds else found


def _judged(error: BaseException) -> Outcome:
    """What an error is for the user of a command: one line of bounded length with status 2, or a failure."""
    status, line = explain(error)
    if status != 2 or line is None or isinstance(error, MemoryError):
        return Outcome(type(error).__name__, " ".join(str(error).split())[:300])
    return Outcome("refused" if len(before_remedy(line)) <= LONGEST and printable(line) == line else "long", line)


def before_remedy(line: str) -> str:
    """What is wrong and where: the line without its last part."""
    return line.rpartition(";")[0] or line


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Ends what takes too long with `TooLong`, and what takes too much memory with `MemoryError`."""

    def end(*_: object) -> None:
        raise TooLong

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, WALL_SECONDS))
    handlers = [(number, signal.signal(number, end)) for number, _, _ in timers]
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, memory[1]))
    try:
        for _, timer, limit in timers:
            signal.setitimer(timer, limit, 1)
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in handlers:
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, memory)
