"""Sides of a comparison: each in a fresh process, its memory watched."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"}


def in_fresh_process(command: list[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a command prints as its last line, a JSON object."""
    variables = {**os.environ, **QUIET, **(environment or {})}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(
    sides: Iterable[str],
    rounds: int,
    command: Callable[[str], list[str]],
    environment: Mapping[str, str] | None = None,
) -> dict[str, list[dict[str, float]]]:
    """What each side's command gives, every side once in each round, so that none has the machine to itself longer."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, rows in found.items():
            rows.append(in_fresh_process(command(side), environment))
            print(side, rows[-1], file=sys.stderr, flush=True)
    return found


def medians_of(found: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Each side's medians over the rounds."""
    return {side: {key: median(row[key] for row in rows) for key in rows[0]} for side, rows in found.items()}


def own_bytes() -> int:
    """Bytes of this process's own pages (`RssAnon`); file pages are the kernel's to drop."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


class Peak:
    """The most bytes of its own that the process held while it was watched."""

    bytes = 0


@contextmanager
def watched() -> Iterator[Peak]:
    """Watches the process's memory within the block."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak.bytes = max(peak.bytes, own_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.bytes = max(peak.bytes, own_bytes())
