"""Commands in processes of their own that begin with their modules in memory, so that they start at once."""

import atexit
import itertools
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tests.runs.shelf import ROOT, register

# Modules that every run needs; a run begins with them in memory.
LOADED = (
    "fit_jax.cli",
    "fit_jax.train",
    "fit_jax.runs.evaluating",
    "fit_jax.runs.trainer",
    "fit_jax.runs.run_folder",
    "fit_jax.evaluation.interactive",
    "fit_jax.focus.tokenizers",
    "orbax.checkpoint",
    "transformers.tokenization_utils_tokenizers",
)
_NUMBERS = itertools.count()
_CONTEXT = multiprocessing.get_context("forkserver")


class Ended(NamedTuple):
    """How a command ended: its exit status (-99: it had to be killed), and what it said."""

    status: int
    errors: str
    output: str


class Command:
    """A command of its own process, whose output goes to files."""

    def __init__(
        self, module: str, arguments: Sequence[str], folder: Path, environment: dict[str, str] | None = None
    ) -> None:
        """Starts `python -m MODULE ARGUMENTS` within the folder, with variables besides this process's own."""
        number = next(_NUMBERS)
        self._files = [folder / f"{stream}-{os.getpid()}-{number}" for stream in ("output", "errors")]
        _CONTEXT.set_forkserver_preload(list(LOADED))
        self._process: BaseProcess = _CONTEXT.Process(
            target=_run,
            args=(module, list(arguments), self._files, dict(os.environ) | (environment or {})),
            daemon=True,
        )
        self._process.start()

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.exitcode is None

    def signal(self, number: signal.Signals, after: float = 0) -> bool:
        """Waits so many seconds, then sends a signal; whether the process was still there."""
        self._process.join(after)
        if self._process.exitcode is not None:
            return False
        assert self._process.pid
        os.kill(self._process.pid, number)
        return True

    def end(self, seconds: float = 600) -> Ended:
        """How it ended, at most so many seconds from now."""
        self._process.join(seconds)
        status = -99 if self._process.exitcode is None else self._process.exitcode
        self._process.kill()
        self._process.join()
        output, errors = (file.read_text(errors="replace") if file.exists() else "" for file in self._files)
        for file in self._files:
            file.unlink(missing_ok=True)
        return Ended(status, errors, output)


def _run(module: str, arguments: list[str], files: Sequence[Path], environment: dict[str, str]) -> None:
    os.chdir(files[0].parent)
    os.environ.clear()
    os.environ.update(environment)
    if ROOT in environment:
        register()
    for number, file in zip((1, 2), files):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    import importlib

    from fit_jax.cli import run

    sys.argv = [module, *arguments]
    try:
        run(importlib.import_module(module).main)
    finally:
        atexit._run_exitfuncs()  # which processes of `multiprocessing` leave out: there a job's processes take leave


class Job:
    """Processes that train one run together; one alone is no job of several."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        processes: int = 1,
        devices: int = 1,
        module: str = "fit_jax.train",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts a command in so many processes with so many simulated devices each, and with variables of its own."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ.get("XLA_FLAGS", ""))
        shared = {**(environment or {}), "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}"}
        if processes > 1:
            shared |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
        self.commands = [
            Command(module, arguments, folder, shared | ({"JAX_PROCESS_ID": str(n)} if processes > 1 else {}))
            for n in range(processes)
        ]

    def wait_for(self, metrics: Path, lines: int) -> None:
        """Waits until the run has logged so many steps, or one of the processes has ended."""
        while logged(metrics) < lines and all(command.is_running() for command in self.commands):
            time.sleep(0.01)

    def end(self) -> list[Ended]:
        """How each process ended."""
        return [command.end() for command in self.commands]


def logged(metrics: Path) -> int:
    """How many steps a run has logged."""
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0
