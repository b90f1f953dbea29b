"""A run that is stopped again and again, and goes on each time with other processes on another mesh."""

import signal
from pathlib import Path
from random import Random

from fit_jax.training.metrics import read_metrics
from tests.processes import Job, logged

from .runs import TINY

LONG = (
    TINY.replace("steps: 8", "steps: {steps}")
    .replace("checkpoint_every: 2", "checkpoint_every: 3")
    .replace("timeout: 20", "timeout: 120")
)
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
    metrics = run / "metrics.jsonl"
    (end,) = Job(folder, [*given, straight.name]).end()
    if end.status:
        return [f"the run without restarts ends with {end}"], 0.0
    for number in range(restarts + 1):
        processes, devices, mesh = random.choice(PLACES)
        axes = [part for axis in mesh.split() for part in (f"--mesh.{axis.split('=')[0]}", axis.split("=")[1])]
        job, stopped = Job(folder, [*given, run.name, *axes], processes, devices), True
        if number < restarts:
            goal, sent = logged(metrics) + random.randint(2, 5), random.choice((signal.SIGTERM, signal.SIGKILL))
            job.wait_for(metrics, goal)
            stopped = all([command.signal(sent) for command in job.commands])
        ends = job.end()
        told = " | ".join(text.strip()[-200:] for _, text, _ in ends)
        if (number == restarts and any(end.status for end in ends)) or not stopped:
            wrong.append(f"{processes} processes, {mesh}: ended by themselves, {[end.status for end in ends]}: {told}")
        if "Traceback" in told:
            wrong.append(f"a traceback on {processes} processes, {mesh}: {told}")
    ours, theirs = (read_metrics(path / "metrics.jsonl") for path in (run, straight))
    if [row["step"] for row in ours] != [row["step"] for row in theirs]:
        wrong.append(f"{len(ours)} steps are logged, {len(theirs)} without restarts")
    apart = max((abs(a["loss"] / b["loss"] - 1) for a, b in zip(ours, theirs)), default=0.0)
    return wrong, apart
