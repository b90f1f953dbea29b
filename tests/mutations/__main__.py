"""Applies each mutation to a copy of the tree, runs the tests that must see it, and tells which none saw.

    python -m tests.mutations [--jobs 1] [--out FILE] [NAME ...]

A NAME is a mutation's, or the beginning of several. First the tests run without any mutation: what fails there proves
nothing. With --out a Markdown table is written, mutation by mutation; those already in it are not run again. The exit
status is 1 where one survives. The libraries are imported once, and each mutation runs in a fork of that process.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from tests.mutations.catalogue import ROOT, Mutation, catalogue

COPIED = ("fit_jax", "tests", "configs", "docs", "notebooks", "tpu_scripts", "benchmarks")
PLUGINS = ("pytest", "hypothesis", "pytest_timeout", "xdist.plugin")  # what pytest imports at its start
LIMIT = 1200  # seconds for the tests of one mutation
HEADER = ("mutation", "file", "outcome", "seconds")


class Outcome(NamedTuple):
    """What became of a mutation: `caught`, `survived`, or `broken` where the tests could not run."""

    mutation: Mutation
    what: str
    seconds: float

    @property
    def row(self) -> str:
        """A row of the table."""
        return f"| {self.mutation.name} | {self.mutation.file} | {self.what} | {self.seconds:.0f} |"


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--no-baseline", action="store_true", help="skip the tests without a mutation")
    asked = parser.parse_args()
    done = _done(asked.out)
    chosen = [m for m in catalogue() if m.name.startswith(tuple(asked.names) or "") and m.name not in done]
    if not asked.no_baseline and chosen and not _baseline(chosen):
        print("the tests fail without any mutation", flush=True)
        return 1
    survivors = []
    with ExitStack() as stack, ThreadPoolExecutor(asked.jobs) as pool:
        trees: Queue[Path] = Queue()
        for _ in range(asked.jobs):
            trees.put(stack.enter_context(copy_of_tree()))
        for outcome in pool.map(lambda mutation: run(mutation, trees), chosen):
            print(outcome.row, flush=True)
            if asked.out:
                _append(asked.out, outcome.row)
            if outcome.what != "caught":
                survivors.append(outcome.mutation.name)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught; not caught: {', '.join(survivors) or 'none'}")
    return int(bool(survivors))


def run(mutation: Mutation, trees: "Queue[Path]") -> Outcome:
    """Runs the tests of one mutation in one of the copies of the tree, which is as before afterwards."""
    root = trees.get()
    start = time.monotonic()
    before = mutation.apply(root)
    try:
        code = _tests(root, mutation.tests)
    finally:
        (root / mutation.file).write_text(before, encoding="utf-8")
        trees.put(root)
    what = {0: "survived", 1: "caught"}.get(code, f"broken ({code})")
    return Outcome(mutation, what, time.monotonic() - start)


@contextmanager
def copy_of_tree() -> Iterator[Path]:
    """A copy of what tests read, with what Python compiled of it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        root.mkdir()
        for name in COPIED:
            shutil.copytree(ROOT / name, root / name, symlinks=True)
        for path in (p for p in ROOT.iterdir() if p.is_file()):
            shutil.copy(path, root)
        yield root


def _baseline(mutations: Sequence[Mutation]) -> bool:
    tests = dict.fromkeys(test for mutation in mutations for test in mutation.tests)
    with copy_of_tree() as root:
        return _tests(root, tuple(tests), limit=LIMIT * 10) == 0


def _tests(root: Path, tests: Sequence[str], limit: int = LIMIT) -> int:
    """pytest's exit status in the tree at `root`, in a child that finds the libraries imported; 124 past the limit."""
    child = os.fork()
    if not child:
        code = 3
        try:
            os.setsid()
            code = _run_pytest(root, tests)
        finally:
            os._exit(code)
    for _ in range(limit * 5):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.2)
    os.killpg(child, 9)
    os.waitpid(child, 0)
    return 124


def _run_pytest(root: Path, tests: Sequence[str]) -> int:
    import pytest

    log = os.open(root / "log.txt", os.O_RDWR | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(root)
    # The copy stands first, and what of the tests was imported to run this is forgotten.
    sys.path[:] = [str(root), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    os.environ["PYTHONPATH"] = str(root)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "fit_jax")]:
        del sys.modules[name]
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-o", "addopts=--import-mode=importlib"]
    return int(pytest.main([*options, *(str(root / test) for test in tests)]))


def _import_libraries() -> None:
    """What nearly every test needs; nothing of JAX is started, so the process can still fork."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("scipy.special", "jax.numpy", "flax.nnx", "optax", "transformers", *PLUGINS):
        __import__(name)


def _done(path: Path | None) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return {line.split(" | ")[0].removeprefix("| ") for line in lines if " | caught | " in line}


def _append(path: Path, row: str) -> None:
    if not path.exists():
        path.write_text(f"| {' | '.join(HEADER)} |\n|---|---|---|---:|\n", encoding="utf-8")
    name = row.split(" | ")[0]
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.split(" | ")[0] != name]
    path.write_text("\n".join([*lines, row]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("FIT_JAX_DATA", str(ROOT.parent / "shared" / "data"))
    _import_libraries()
    sys.exit(main())
