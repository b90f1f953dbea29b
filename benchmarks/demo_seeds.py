"""Whether the demo's recipe has margin: its smallest focus accuracy by seed and by the CPU's instruction set.

    python -m benchmarks.demo_seeds [--seeds 0 1 2 3 4] [--isa native AVX2] [--runs FOLDER] [--section.field value ...]

Trains `configs/demo.yaml` once for each pair, each a process of its own, and prints a Markdown table: the smallest cell
(six focus types x four splits, held-out paraphrases), which one it is, and seconds from start to report. Other
arguments go to the demo. A pair whose run folder already has a report is read and not trained again, so the command
can be stopped and started; its seconds are those of the run that trained it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--isa", nargs="+", default=["native", "AVX2"], help="native, or a value of xla_cpu_max_isa")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks/demo_seeds"), help="where the runs are kept")
    arguments, demo = parser.parse_known_args()
    print("| seed | instruction set | smallest cell | where | seconds |\n|---|---|---|---|---|", flush=True)
    smallest = []
    for seed in arguments.seeds:
        for isa in arguments.isa:
            run = arguments.runs / f"{seed}-{isa}"
            if not (run / "seconds.json").exists():
                train(run, seed, isa, demo)
            cell, where = smallest_cell(run)
            smallest.append(cell)
            seconds = json.loads((run / "seconds.json").read_text())
            print(f"| {seed} | {isa} | {cell:.3f} | {where} | {seconds:.0f} |", flush=True)
    print(f"\nSmallest of all: {min(smallest):.3f}")


def train(run: Path, seed: int, isa: str, demo: list[str]) -> None:
    """One demo, from nothing to its report, on this CPU or held to a smaller instruction set."""
    flags = os.environ.get("XLA_FLAGS", "") + ("" if isa == "native" else f" --xla_cpu_max_isa={isa}")
    command = [sys.executable, "-m", "fit_jax.train", "--config", "configs/demo.yaml", "--run_dir", str(run)]
    started = time.perf_counter()
    subprocess.run(
        [*command, "--seed", str(seed), *demo],
        env=os.environ | {"XLA_FLAGS": flags.strip()},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (run / "seconds.json").write_text(json.dumps(time.perf_counter() - started))


def smallest_cell(run: Path) -> tuple[float, str]:
    """The smallest focus accuracy of a report on held-out paraphrases, and its focus type and split."""
    rows = map(json.loads, (run / "report" / "focus_accuracy.jsonl").read_text().splitlines())
    row = min((row for row in rows if row["paraphrases"] == "heldout"), key=lambda row: row["accuracy"])
    return row["accuracy"], f"`{row['focus']}`, {row['split']}"


if __name__ == "__main__":
    main()
