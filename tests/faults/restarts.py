"""A run that is stopped again and again, and goes on each time with other processes on another mesh."""

import signal
import time
from pathlib import Path
from random import Random

from fit_jax.training.metrics import read_metrics

from .runs import TINY, Job

LONG = TINY.replace("steps: 8", "steps: {steps}").replace("checkpoint_every: 2", "checkpoint_every: 3")
# Processes, devices of each, and how the mesh lays them out.
PLACES = (
    (1, 1, "data=1"),
    (1, 2, "data=2"),
    (1, 2, "fsdp=2"),
    (1, 2, "context=2"),
    (1, 4, "data=2 fsdp=2"),
    (1, 4, "fsdp=2 tensor=2"),
    (1, 8, "data=2 fsdp=2 tensor=2"),
    (2, 1, "data=2"),
    (2, 2, "data=2 fsdp=2"),
    (2, 2, "fsdp=2 tensor=2"),
    (4, 1, "data=2 fsdp=2"),
)


def restarted_run(random: Random, folder: Path, restarts: int) -> tuple[list[str], float]:
    """One run whose processes and mesh change at every restart.

    Returns:
        What is wrong with it, a line each, and the greatest relative difference of a loss from the run's on one device
        that was never stopped.
    """
    (folder / "long.yaml").write_text(LONG.replace("{steps}", str(5 * restarts)))
    given = ["--config", "long.yaml", "--run_dir"]
    straight, run, wrong = folder / "long_straight", folder / "long_run", []
    ends = Job(folder, [*given, straight.name]).end()
    if ends[0][0]:
        return [f"the run without restarts ends with {ends[0]}"], 0.0
    for number in range(restarts + 1):
        processes, devices, mesh = random.choice(PLACES)
        axes = [part for axis in mesh.split() for part in (f"--mesh.{axis.split('=')[0]}", axis.split("=")[1])]
        job = Job(folder, [*given, run.name, *axes], processes, devices)
        if number < restarts:
            goal, sent = _lines(run) + random.randint(2, 5), random.choice((signal.SIGTERM, signal.SIGKILL))
            while _lines(run) < goal and all(command.is_running() for command in job.commands):
                time.sleep(0.02)
            for command in job.commands:
                command.kill(0, sent)
        ends = job.end()
        told = " | ".join(text.strip()[-200:] for _, text in ends)
        if number == restarts and any(status for status, _ in ends):
            wrong.append(f"{processes} processes, {mesh}: {[status for status, _ in ends]}: {told}")
        if "Traceback" in told:
            wrong.append(f"a traceback on {processes} processes, {mesh}: {told}")
    ours, theirs = (read_metrics(path / "metrics.jsonl") for path in (run, straight))
    if [row["step"] for row in ours] != [row["step"] for row in theirs]:
        wrong.append(f"{len(ours)} steps are logged, {len(theirs)} without restarts")
    apart = max((abs(a["loss"] / b["loss"] - 1) for a, b in zip(ours, theirs)), default=0.0)
    return wrong, apart


def _lines(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0
