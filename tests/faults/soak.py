"""Training, evaluating and asking over and over in one process, whose memory and open files must not grow.

python -m tests.faults.soak [--minutes N] [--out FILE]

Prints the memory and the open files of each round's end. The status is 1 where the last quarter of the rounds has more
of either than the second quarter, by more than a hundredth of the memory.
"""

import argparse
import contextlib
import gc
import json
import os
import shutil
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from .runs import TINY

SETTINGS = {"train.log_every": 4, "evaluation.splits": ["iid"]}


def one_round(folder: Path, number: int) -> None:
    """Tunes a model, opens it again, evaluates it and asks it; its run folder is gone afterwards."""
    import fit_jax

    run = folder / "run"
    settings = SETTINGS | {"seed": number % 7}
    fit_jax.tune(run, folder / "tiny.yaml", settings)
    model = fit_jax.load(run)
    model.evaluate("low", {"evaluation.splits": ["low"]})
    answers = model.ask_all("a fine film about a small town")
    assert len(answers) == 6, answers
    shutil.rmtree(run)


def resources() -> dict[str, int]:
    """Bytes of memory that are this process's own, and its open files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"memory": pages * os.sysconf("SC_PAGE_SIZE"), "files": len(os.listdir("/proc/self/fd"))}


def growth(rounds: list[dict[str, int]]) -> dict[str, float]:
    """The median of the last quarter over that of the second, for memory and files."""
    quarter = len(rounds) // 4
    early, late = rounds[quarter : 2 * quarter], rounds[-quarter:]
    return {name: median(r[name] for r in late) / median(r[name] for r in early) for name in rounds[0]}


def main() -> int:
    """Goes round until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, help="a JSONL file of the rounds")
    given = parser.parse_args()
    end, rounds = time.monotonic() + 60 * given.minutes, []
    with TemporaryDirectory() as place:
        (Path(place) / "tiny.yaml").write_text(TINY)
        while time.monotonic() < end or len(rounds) < 8:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                one_round(Path(place), len(rounds))
            rounds.append(resources())
            if given.out:
                given.out.write_text("".join(json.dumps(row) + "\n" for row in rounds))
            if len(rounds) % 10 == 1:
                print(
                    f"round {len(rounds)}: {rounds[-1]['memory'] >> 20} MiB, {rounds[-1]['files']} files",
                    file=sys.stderr,
                    flush=True,
                )
    grown = growth(rounds)
    print(
        f"{len(rounds)} rounds in {given.minutes:g} minutes; last quarter over second quarter: "
        f"memory {grown['memory']:.4f}, open files {grown['files']:.4f}"
    )
    return 1 if grown["memory"] > 1.01 or grown["files"] > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
