"""Tiny runs that are killed at random moments, and what must be so afterwards."""

import logging
import re
import shutil
import signal
from pathlib import Path
from random import Random

from fit_jax.sums import WHOLE
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from tests.processes import Job

TINY = """
seed: 3
focus: {branches: 2}
optimizer: {learning_rate: 0.003, warmup: 0.1}
task: {train_examples: 32, validation_examples: 8, test_examples: 4}
tokenizer: {vocab_size: 300}
model: {layers: 1, width: 16, feed_forward: 24, heads: 2, kv_heads: 1, dropout: 0.1}
train: {steps: 8, batch_size: 8, sequence_length: 256, log_every: 1, validate_every: 4, checkpoint_every: 2, keep: 2}
evaluation: {validation_examples: 4, splits: [iid], paraphrases: [train]}
mesh: {timeout: 20}
"""
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What two runs of one config need not share: times, and what names them.
_UNLIKE = re.compile(
    r"tensorboard/.*|log\.txt|.*_METADATA|.*commit_success\.txt|.*progress/metadata|.*manifest\.ocdbt|.*/d/[0-9a-f]+|\.lock"
)


def train(folder: Path, run: str, processes: int = 1) -> Job:
    """Starts or resumes a tiny run."""
    (folder / "tiny.yaml").write_text(TINY)
    return Job(folder, ["--config", "tiny.yaml", "--run_dir", run], processes)


def contents(run: Path) -> dict[str, object]:
    """What must not depend on kills: every file by its name, with its content where that holds no time."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or _UNLIKE.fullmatch(name):
            continue
        found[name] = path.suffix == WHOLE or path.read_bytes()  # sums of what holds times
    if (run / "metrics.jsonl").exists():
        records = read_metrics(run / "metrics.jsonl")
        found["metrics.jsonl"] = [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in records]
    return found


def weights(run: Path, which: str = "*[0-9]") -> dict[str, bytes]:
    """The arrays of every checkpoint of a run, or of some by name, whatever devices they were saved from."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    found, reader = {}, ocp.PyTreeCheckpointer()
    for step in sorted((run / "checkpoints").glob(which)):
        shapes = reader.metadata(step / "state").item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        leaves = jax.tree_util.tree_flatten_with_path(reader.restore(step / "state", restore_args=on_host))[0]
        found |= {f"{step.name}{jax.tree_util.keystr(path)}": leaf.tobytes() for path, leaf in leaves}
    return found


def killed_run(
    random: Random, folder: Path, straight: Path, seconds: float, processes: int = 1
) -> tuple[list[str], int]:
    """Runs with kills at random moments until it is done.

    Args:
        random: Draws moments, signals and which process is hit.
        folder: Holds the run.
        straight: The same run in as many processes, never killed.
        seconds: How long a run takes, about.
        processes: How many train it.

    Returns:
        What is wrong with it, a line each, and how many times it was killed.
    """
    run, wrong, kills = folder / f"killed{processes}" / straight.name, [], 0
    shutil.rmtree(run.parent, ignore_errors=True)
    run.parent.mkdir()
    said = []
    for _ in range(random.choice((1, 1, 2, 3))):
        job, number, which = train(run.parent, run.name, processes), random.choice(SIGNALS), random.randrange(processes)
        hit = job.commands[which].signal(number, random.uniform(0.02, 1) * seconds)
        kills += hit
        for place, (status, told, _) in enumerate(job.end()):
            said.append(f"{number.name if hit and place == which else 'no signal'} {status}")
            if "Traceback" in told and not (place == which and number is signal.SIGKILL):
                wrong.append(f"a traceback after {said}: {told.strip().splitlines()[-1][:200]}")
            if status == -99:
                wrong.append(f"no end after {said}")
    ends = train(run.parent, run.name, processes).end()
    if any(end.status for end in ends):
        wrong.append(f"status {[end.status for end in ends]} after {said}: {ends[0].errors[-300:]}")
        return wrong, kills
    ours, theirs = contents(run), contents(straight)
    wrong += [f"after {said}: {name} differs" for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]]
    wrong += [f"after {said}: {name} is there" for name in sorted(ours.keys() - theirs.keys())]
    wrong += [f"after {said}: {name} is gone" for name in sorted(theirs.keys() - ours.keys())]
    if weights(run) != weights(straight):
        wrong.append(f"after {said}: the weights differ")
    return wrong, kills
