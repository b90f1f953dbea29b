"""Building the paper's data sets, and a table of a million rows: seconds and peak memory, each in a fresh process.

    FIT_JAX_DATA=DATA python -m benchmarks.data [--rows 1000000]

`build`: `python -m fit_jax.data build` of every task, one after another. `jsonl`: a JSONL file of so many rows, with
texts of 20 and of 200 words, is opened as own data and every training example is read once, in random order. Memory is
the most that was resident, file pages included. Prints a table and writes `runs/benchmarks/data.json`.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import in_fresh_process

OUTPUT = Path("runs/benchmarks/data.json")
TASKS = ("ss", "smnli", "shans", "bbq", "bbq_nlg")
WORDS = (20, 200)
OWN = """
name: notes
files: [rows.jsonl]
instruction: Is the note about work or about home?
input: "Note: {text}"
core: the topic
candidates: [home, work]
features:
  - key: urgency
    name: the urgency
    column: urgency
    labels: {high: work, low: home}
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.read:
        print(json.dumps(read(asked.read)))
        return
    if "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds sst5, mnli, hans and bbq")
    found = {}
    print(f"{'':20}{'seconds':>9}{'MiB':>7}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for task in TASKS:
            found[f"build {task}"] = built(task, scratch)
            shown(f"build {task}", found)
        print(f"{'build, all':20}{sum(row['seconds'] for row in found.values()):9.1f}")
        for words in WORDS:
            name = f"jsonl, {words} words"
            path = write_rows(Path(scratch), asked.rows, words)
            found[name] = in_fresh_process([sys.executable, "-m", "benchmarks.data", "--read", str(path)])
            found[name]["file_mib"] = (path.parent / "rows.jsonl").stat().st_size / 2**20
            shown(name, found)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(found, indent=2))


def shown(name: str, found: dict[str, dict[str, float]]) -> None:
    row = found[name]
    size = f"   file {row['file_mib']:,.0f} MiB, {row['rows']:,} rows" if "rows" in row else ""
    print(f"{name:20}{row['seconds']:9.1f}{row['mib']:7.0f}{size}", flush=True)


def built(task: str, folder: str) -> dict[str, float]:
    start = time.perf_counter()
    command = [sys.executable, "-m", "fit_jax.data", "build", "--task", task, "--out", folder]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"build of {task} ended with status {os.waitstatus_to_exitcode(status)}")
    return {"seconds": time.perf_counter() - start, "mib": usage.ru_maxrss / 1024}


def write_rows(folder: Path, count: int, words: int) -> Path:
    """The table and its description; returns the description's path."""
    draw = random.Random(0)
    pool = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(5000)]
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            row = {
                "text": f"note {number} " + " ".join(draw.choices(pool, k=words)),
                "label": draw.choice(("home", "work")),
                "urgency": draw.choice(("high", "low")),
            }
            file.write(json.dumps(row) + "\n")
    (folder / "rows.yaml").write_text(OWN)
    return folder / "rows.yaml"


def read(path: str) -> dict[str, float]:
    """Opens the table as a run does, and reads its training split."""
    from fit_jax.config import load_config
    from fit_jax.data.keyed_generator import generator
    from fit_jax.data.tasks import build_task

    start = time.perf_counter()
    task = build_task(load_config(["--task.name", "jsonl", "--task.file", path]).task, 0)
    examples = task.splits["train"].examples
    characters = sum(len(examples[i].slots["text"]) for i in generator(0, "read").permutation(len(examples)).tolist())
    return {
        "seconds": time.perf_counter() - start,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": sum(len(split.examples) for split in task.splits.values()),
        "characters": characters,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
