"""Seconds from the command to the first training step of a run: cold (nothing compiled before) and warm.

    python -m benchmarks.start_up [--rounds 3] [--section.field value ...]

Without options of a config, the demo. Each start is a fresh process in a new run folder, and is ended when its first
step is reported. Prints medians and writes `runs/benchmarks/start_up.json`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

OUTPUT = Path("runs/benchmarks/start_up.json")


def main(arguments: list[str]) -> None:
    rounds = 3
    if arguments[:1] == ["--rounds"]:
        rounds, arguments = int(arguments[1]), arguments[2:]
    with tempfile.TemporaryDirectory() as scratch:
        found = {"cold": [first_step(scratch, f"cold{n}", f"cache{n}", arguments) for n in range(rounds)]}
        found["warm"] = [first_step(scratch, f"warm{n}", "cache0", arguments) for n in range(rounds)]
    for name, seconds in found.items():
        print(f"{name}: {median(seconds):.1f} s to the first step ({', '.join(f'{s:.1f}' for s in seconds)})")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({name: {"median": median(s), "seconds": s} for name, s in found.items()}, indent=2))


def first_step(scratch: str, run: str, cache: str, options: list[str]) -> float:
    """Starts a run and waits for the line of its first step."""
    command = [
        sys.executable,
        "-m",
        "fit_jax.train",
        *options,
        "--train.log_every",
        "1",
        "--run_dir",
        f"{scratch}/{run}",
    ]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{scratch}/{cache}"}
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 1/"):
                seconds = time.perf_counter() - start
                process.kill()
                return seconds
    raise SystemExit(f"the run ended with status {process.returncode} before its first step")


if __name__ == "__main__":
    main(sys.argv[1:])
