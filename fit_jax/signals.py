"""Ctrl-C and the machine's request to end (SIGTERM): one line and the right status, whatever the process is doing.

Python runs its handlers in the main thread, between two of its own instructions. That is too late during minutes of
compiling, and what a handler raises inside a library's callback is swallowed there. So a thread watches that the main
one takes notice, and `check` raises once more what was swallowed. Nothing is raised amid an import, where extensions
in C crash and libraries print at length what has failed: the thread sends the signal again until the import is over,
and ends a process that still imports when its patience does.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn

# Seconds that the main thread has to take notice of a signal before the process ends without it.
_PATIENCE = 3.0
# Seconds between two looks at whether it has.
_GLANCE = 0.05
# Where the interpreter imports, as its frames call it.
_IMPORTING = "<frozen importlib._bootstrap>"
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "told to stop"}


# Which code of the user's own may exchange while a signal comes.
_exit = os._exit


class Terminated(BaseException):
    """The process is to end (SIGTERM); as little to be caught on the way as `KeyboardInterrupt`."""


_ERRORS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
# What this process has received, and the signals that are heard at a moment of the program's own choice.
_received: list[int] = []
_deferred: set[int] = set()
# Signals that came amid an import, and those of them that are on their way again.
_again: set[int] = set()
_resent: set[int] = set()
# What the line of a process adds that is ended by a signal: nothing, or one function that says it.
_added: list[Callable[[], str]] = []


def end_at_once() -> None:
    """From now on a signal ends the process where it stands: nothing has begun, or nothing is left to do."""
    _handle(lambda number, frame: _end(number))


def listen() -> None:
    """From now on a signal raises `KeyboardInterrupt` or `Terminated` in the main thread; a second one ends at once."""
    if not _received and threading.current_thread() is threading.main_thread():
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reading,), daemon=True, name="signals").start()
        sys.unraisablehook = partial(_tell_unraised, sys.unraisablehook)
    _handle(_raise)


def received() -> int | None:
    """The signal that the process was to end by, if any."""
    return _received[0] if _received else next(iter(_again), None)


def words(number: int) -> str:
    """What a command says that ends by a signal."""
    return ": ".join([_WORDS[signal.Signals(number)], *(add() for add in _added)])


@contextmanager
def telling(add: Callable[[], str]) -> Iterator[None]:
    """Meanwhile the line of a process that is ended by a signal says more; so does that of an error's way out.

    Args:
        add: Says it, at that moment, by whatever thread.
    """
    _added[:] = [add]
    yield
    _added.clear()  # not on an error's way out: the line is said at its end


def check() -> None:
    """Raises what a signal has raised before and a library has swallowed, or what came amid an import."""
    if (number := received()) is not None:
        if not _received:
            _received.append(number)
        raise _ERRORS[number]


@contextmanager
def deferred(number: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Meanwhile a signal raises nothing; yields what tells whether it has come. One not asked about is raised after."""
    requests: list[int] = [number] if number in _again else []
    _again.discard(number)
    seen = 0

    def has_come() -> bool:
        nonlocal seen
        seen = len(requests)
        return bool(requests)

    before = signal.signal(number, lambda number, frame: requests.append(number))
    _deferred.add(number)
    try:
        yield has_come
    finally:
        _deferred.discard(number)
        signal.signal(number, before)
    if not seen and requests:  # nobody has asked since it came
        signal.raise_signal(number)


def _tell_unraised(tell: Callable[[Any], object], unraised: Any) -> None:
    """Keeps silent of what a signal has raised in a destructor or callback, which Python only prints; `check` raises it
    again."""
    if not (_received and unraised.exc_type in _ERRORS.values()):
        tell(unraised)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in _ERRORS:
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    from_outside = number not in _resent
    _resent.discard(number)
    if _received and not from_outside:
        return  # `check` has raised it meanwhile
    if _received or (from_outside and number in _again):
        _end(number)
    if _imports(frame):
        _again.add(number)
        return
    _again.discard(number)
    _received.append(number)
    raise _ERRORS[number]


def _imports(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _IMPORTING:
        frame = frame.f_back
    return frame is not None


def _end(number: int) -> NoReturn:
    with suppress(OSError):  # nobody may be there to read it
        os.write(2, f"{words(number)}\n".encode())
    _exit(128 + number)


def _watch(reading: int) -> NoReturn:
    """Ends the process where the main thread takes no notice of a signal."""
    main = threading.main_thread().ident
    assert main is not None
    while True:
        for number in os.read(reading, 64):
            if number in _ERRORS and number not in _deferred and not sys.is_finalizing():
                end = time.monotonic() + _PATIENCE
                while number not in _received and number not in _deferred and time.monotonic() < end:
                    time.sleep(_GLANCE)
                    if number in _again and number not in _resent:
                        _resent.add(number)
                        signal.pthread_kill(main, number)  # which wakes it where it waits for the system
                if number not in _received and number not in _deferred:
                    _end(number)
