"""Tiny runs that are killed at random moments, and what must be so afterwards."""

import logging
import re
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

from fit_jax.sums import WHOLE
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from tests.processes import Command, Job
from tests.runs import shelf

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
REMOTE = "remote"  # the kind whose run folder is behind a URL
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Kinds of runs to kill: the command, and what their configs have besides `TINY`, by dotted name. BASE is a model.
KINDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain": ("fit_jax.train", {}),
    "accumulated": ("fit_jax.train", {"train.accumulate": 2, "train.patience": 1}),
    "unpacked": ("fit_jax.train", {"train.packing": False, "train.examples_per_step": None}),
    "adapter": (
        "fit_jax.train",
        {"model": "BASE", "tokenizer": {}, "lora.rank": 2},
    ),
    "jtt": ("fit_jax.train", {"train.method": "jtt", "focus.branches": 1}),
    "dfr": ("fit_jax.train", {"train.method": "dfr", "focus.branches": 1}),
    "group_dro": ("fit_jax.train", {"train.method": "group_dro", "focus.branches": 1}),
    "experiment": (
        "fit_jax.experiment.__main__",
        {"methods": ["sft_y", "zero_shot"], "reference": "sft_y", "seeds": [3]},
    ),
    REMOTE: ("fit_jax.train", {}),
}
OBJECTS = 60  # about as many as such a run writes to its store
# The kinds that are no job of several processes.
ALONE = ("experiment", REMOTE)
# What two runs of one config need not share: times, and what names them.
_UNLIKE = re.compile(
    r"(?:.*/)?(?:tensorboard/.*|log\.txt|[^/]*_METADATA|[^/]*commit_success\.txt|progress/metadata|[^/]*manifest\.ocdbt"
    r"|d/[0-9a-f]+|\.lock)"
)


class Straight(NamedTuple):
    """A run of a kind that was never killed.

    Attributes:
        kind: Of `KINDS`.
        folder: Its run folder.
        seconds: How long such a run takes, about.
    """

    kind: str
    folder: Path
    seconds: float


def start(place: Path, kind: str, processes: int = 1, objects: int | None = None) -> Job:
    """Starts or resumes the run of a kind.

    Args:
        place: Holds the run folder, which is named as the kind, or the store of one behind a URL.
        kind: Of `KINDS`.
        processes: How many train it.
        objects: How many objects a process may write to a store before it is killed.
    """
    module, fields = KINDS[kind]
    base = place if (place / "base").exists() else place.parent
    config = yaml.safe_load(TINY) if module == "fit_jax.train" else {"run": yaml.safe_load(TINY)}
    for name, value in fields.items():
        *above, last = name.split(".")
        section = config
        for part in above:
            section = section.setdefault(part, {})
        section[last] = {"pretrained": str(base / "base")} if value == "BASE" else value
    (place / f"{kind}.yaml").write_text(yaml.safe_dump(config))
    command, around = ["--config", f"{kind}.yaml", "--run_dir", kind], {}
    if kind == REMOTE:
        (place / "store").mkdir(exist_ok=True)
        command[-1] = shelf.URL
        around = {shelf.ROOT: str(place / "store"), "XDG_CACHE_HOME": str(place / "cache")}
        around |= {} if objects is None else {shelf.LAST: str(objects)}
    return Job(place, command, processes, module=module, environment=around)


def brought(place: Path, kind: str) -> Path:
    """The folder of a finished run; one behind a URL is copied from its store, by name, and leaves nothing here.

    Raises:
        RuntimeError: Its working copy is still there, or its lock.
    """
    run = place / kind
    if kind != REMOTE:
        return run
    if left := [path for path in place.glob("cache/fit_jax/remote/*")]:
        raise RuntimeError(f"a working copy is left: {left}")
    for name, content in shelf.objects(place / "store").items():
        if name.removesuffix(WHOLE) in ("tokenizer", "adapter"):
            continue
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    return run


def straight_run(folder: Path, kind: str = "plain", processes: int = 1) -> Straight:
    """A run of a kind without faults.

    Raises:
        RuntimeError: It fails, or another one of the same config differs from it.
    """
    warm, straight = folder / f"warm_{kind}", folder / kind
    if "BASE" in KINDS[kind][1].values():
        _make_base(folder)
    for place in (warm, folder):  # what the first one compiles, the others find
        place.mkdir(exist_ok=True)
        begun = time.monotonic()
        ends = start(place, kind, processes).end()
        if any(end.status for end in ends):
            raise RuntimeError(f"{kind}: the run without faults ends with {ends}")
    if wrong := differences(brought(warm, kind), brought(folder, kind)):
        raise RuntimeError(f"{kind}: two runs without faults differ: {wrong}")
    shutil.rmtree(warm)
    return Straight(kind, straight, time.monotonic() - begun)


def _make_base(folder: Path) -> None:
    """A model in Hugging Face's form, of a run's: what adapters are trained on."""
    if (folder / "base").exists():
        return
    own = folder / "of_base"  # a run of one process, which is no straight run of a job of several
    own.mkdir()
    run = straight_run(own).folder.relative_to(folder)
    made = Command("fit_jax.convert", ["export-merged", "--from", str(run), "--to", "base"], folder).end()
    if made.status:
        raise RuntimeError(f"no base model: {made.errors}")


def contents(run: Path) -> dict[str, object]:
    """What must not depend on kills: every file by its name, with its content where that holds no time."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or _UNLIKE.fullmatch(name):
            continue
        if path.name == "metrics.jsonl":
            records = read_metrics(path)
            found[name] = [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in records]
        else:
            found[name] = path.suffix == WHOLE or path.read_bytes()  # sums of what holds times
    return found


def weights(run: Path, which: str = "*[0-9]") -> dict[str, bytes]:
    """The arrays of every checkpoint of a run, or of some by name, whatever devices they were saved from."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    found, reader = {}, ocp.PyTreeCheckpointer()
    for step in sorted(path for place in run.rglob("checkpoints") for path in place.glob(which)):
        shapes = reader.metadata(step / "state").item_metadata.tree
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        leaves = jax.tree_util.tree_flatten_with_path(reader.restore(step / "state", restore_args=on_host))[0]
        name = step.relative_to(run).as_posix()
        found |= {f"{name}{jax.tree_util.keystr(path)}": leaf.tobytes() for path, leaf in leaves}
    return found


def differences(run: Path, other: Path) -> list[str]:
    """In what a run differs from another one of its config, a line each."""
    ours, theirs = contents(run), contents(other)
    wrong = [f"{name} differs" for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]]
    wrong += [f"{name} is there" for name in sorted(ours.keys() - theirs.keys())]
    wrong += [f"{name} is gone" for name in sorted(theirs.keys() - ours.keys())]
    return wrong + ["the weights differ"] * (weights(run) != weights(other))


def killed_run(random: Random, folder: Path, straight: Straight, processes: int = 1) -> tuple[list[str], int]:
    """Runs with kills at random moments until it is done.

    Args:
        random: Draws moments, signals and which process is hit.
        folder: Holds the run.
        straight: The same run in as many processes, never killed.
        processes: How many train it.

    Returns:
        What is wrong with it, a line each, and how many times it was killed.
    """
    kind, place = straight.kind, folder / "killed"
    wrong, kills, said = [], 0, []
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for _ in range(random.choice((1, 1, 2, 3))):
        number, which = random.choice(SIGNALS), random.randrange(processes)
        objects = random.randrange(OBJECTS) if kind == REMOTE and random.random() < 0.5 else None
        job = start(place, kind, processes, objects)
        hit = job.commands[which].signal(number, random.uniform(0.02, 1) * straight.seconds)
        ends = job.end()
        kills += hit or (objects is not None and ends[0].status == -signal.SIGKILL)
        if kind == REMOTE and random.random() < 0.5:
            shutil.rmtree(place / "cache", ignore_errors=True)  # the next start is another machine's
        for process, (status, told, _) in enumerate(ends):
            said.append(f"{number.name if hit and process == which else 'no signal'} {status}")
            if "Traceback" in told and not (process == which and number is signal.SIGKILL):
                wrong.append(f"{kind}: a traceback after {said}: {told.strip().splitlines()[-1][:200]}")
            if status == -99:
                wrong.append(f"{kind}: no end after {said}")
    ends = start(place, kind, processes).end()
    if any(end.status for end in ends):
        wrong.append(f"{kind}: status {[end.status for end in ends]} after {said}: {ends[0].errors[-300:]}")
        return wrong, kills
    apart = differences(brought(place, kind), straight.folder)
    return wrong + [f"{kind}, after {said}: {line}" for line in apart], kills
