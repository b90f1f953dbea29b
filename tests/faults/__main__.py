"""The campaign: bad inputs for every parser and command, kills of tiny runs, damaged files of runs.

python -m tests.faults [--minutes N] [--seed S] [--inputs N] [--kills N] [--processes N] [--damage N] [--restarts N]
    [--keep FOLDER] [--only NAME]

Prints how many of each kind ended how, and keeps each failure as a case in the folder (default: faults). Put a case
that was fixed into tests/faults/cases, where the tests try it again.
"""

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TextIO

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from .cases import CPU_SECONDS, Case, Outcome, outcome
from .commands import COMMANDS, draw_command
from .parsers import TARGETS, draw_case

# Seconds of computing that a bad input of a parser may take where it is less than for others.
SECONDS = {"chat template": 2}
ACTS = {**{name: target.act for name, target in TARGETS.items()}, **COMMANDS}


def draw(random: Random, name: str) -> Case:
    """A bad input for a parser or a command."""
    return draw_case(random, name) if name in TARGETS else draw_command(random, name)


def main() -> int:
    """Runs the campaign; the status is 1 where anything ended other than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, help="bad inputs in all (default: as many as the minutes allow)")
    parser.add_argument("--kills", type=int, default=0, help="runs to kill, one to three times each")
    parser.add_argument("--processes", type=int, default=1, help="how many train each run that is killed")
    parser.add_argument("--restarts", type=int, default=0, help="restarts of one run over changing meshes")
    parser.add_argument("--damage", type=int, default=0, help="runs whose files are damaged")
    parser.add_argument("--keep", type=Path, default=Path("faults"))
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    failed = _inputs(given, end) if given.inputs != 0 else 0
    if given.kills or given.damage:
        failed += _runs(given, end)
    if given.restarts:
        failed += _restarts(given)
    return 1 if failed else 0


def _inputs(given: argparse.Namespace, end: float) -> int:
    """Tries bad inputs; every parser and command gets as much time, so that quick ones are tried most."""
    counts = {name: Counter[str]() for name in ACTS if not given.only or name in given.only}
    spent = dict.fromkeys(counts, 0.0)
    number = 0
    while time.monotonic() < end and number != given.inputs:
        name = min(spent, key=lambda name: spent[name])
        begun = time.process_time()
        case = draw(Random(f"{given.seed} {counts[name].total()} {name}"), name)
        found = outcome(case, ACTS[name], SECONDS.get(name, CPU_SECONDS))
        spent[name] += time.process_time() - begun
        counts[name][found.kind] += 1
        number += 1
        if not found.promised:
            _keep(given.keep, case, found)
    for name, count in counts.items():
        print(f"{name:22} {sum(count.values()):5}  {_shown(count)}")
    total = sum(counts.values(), Counter[str]())
    print(f"{'in all':22} {total.total():5}  {_shown(total)}", flush=True)
    return total.total() - total["accepted"] - total["refused"]


def _shown(count: Counter[str]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in count.most_common())


def _keep(folder: Path, case: Case, found: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written = case.to_json()
    name = f"{case.target.replace(' ', '_')}-{found.kind}-{hashlib.sha1(written.encode()).hexdigest()[:8]}.json"
    (folder / name).write_text(written)
    line = found.line.encode("ascii", "backslashreplace").decode()
    print(f"{folder / name}: {found.kind}: {line[:300]}", flush=True)


def _runs(given: argparse.Namespace, end: float) -> int:
    from . import damage, runs

    with TemporaryDirectory() as place:
        folder = Path(place)
        kinds = [kind for kind in runs.KINDS if given.processes == 1 or kind not in runs.ALONE]
        straight = cache(lambda kind: runs.straight_run(folder, kind, given.processes))
        failed = killed = tried = hurt = 0
        healthy = cache(lambda: damage.Healthy(straight("plain").folder))
        for number in range(max(given.kills, given.damage)):
            if time.monotonic() > end:
                break
            wrong: list[str] = []
            if number < given.kills:
                random = Random(f"{given.seed} kill {number}")
                wrong, kills = runs.killed_run(random, folder, straight(random.choice(kinds)), given.processes)
                killed, tried = killed + kills, tried + 1
            if number < given.damage:
                wrong += damage.damaged_run(Random(f"{given.seed} damage {number}"), folder, healthy())
                hurt += 1
            failed += bool(wrong)
            _tell(wrong)
            if number % 20 == 19:
                _tell_runs(tried, killed, hurt, failed, sys.stderr)
        _tell_runs(tried, killed, hurt, failed, sys.stdout)
        return failed


def _tell_runs(tried: int, killed: int, hurt: int, failed: int, to: TextIO) -> None:
    told = f"runs: {tried} killed {killed} times, {hurt} with damaged files; {failed} not as promised"
    print(told, file=to, flush=True)


def _restarts(given: argparse.Namespace) -> int:
    from .restarts import restarted_run

    with TemporaryDirectory() as place:
        wrong, apart = restarted_run(Random(f"{given.seed} restarts"), Path(place), given.restarts)
    _tell(wrong)
    print(
        f"{given.restarts} restarts: losses at most {apart:.1e} from those of the run that was never stopped",
        flush=True,
    )
    return len(wrong) + (apart > 1e-6)


def _tell(wrong: list[str]) -> None:
    for line in wrong:
        print(line.encode("ascii", "backslashreplace").decode(), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "fit_jax_faults"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    sys.exit(main())
