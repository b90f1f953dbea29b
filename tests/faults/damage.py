"""Tiny runs whose files are damaged: what is answered then is what was answered before, or it is told in one line."""

import re
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from fit_jax.errors import InputError
from fit_jax.sums import WHOLE
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from tests.processes import Command, Ended

from . import hostile, runs

ASKED = ("--text", "a fine film about a dull town")
# What of a run folder is read again, besides its checkpoints.
READ = ("config.yaml", "inputs.json", "versions.json", "metrics.jsonl", "tokenizer/*", "task/*")
# How a command tells that it cannot know whether a checkpoint is what was written.
UNCHECKED = "has no sums"
_ADVICE = re.compile(r"checkpoints/(\d+)\b.*move that folder out of the run")


def flipped(random: Random, content: bytes) -> bytes:
    """One bit is another."""
    at = random.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]


def zeroed(random: Random, content: bytes) -> bytes:
    """A block is zeros, as a disk leaves it that lost a write."""
    at = random.randrange(len(content)) & ~511
    return content[:at] + bytes(len(content[at : at + 512])) + content[at + 512 :]


def shortened(random: Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: random.randrange(len(content))]


CHANGES: tuple[Callable[[Random, bytes], bytes], ...] = (flipped, flipped, flipped, zeroed, shortened, hostile.damaged)


class Healthy:
    """A finished run, and what each command makes of it."""

    def __init__(self, straight: Path) -> None:
        self.folder = straight
        (straight.parent / "tiny.yaml").write_text(runs.TINY)

    @cached_property
    def steps(self) -> list[int]:
        """Those of its checkpoints."""
        return sorted(int(p.name) for p in (self.folder / "checkpoints").iterdir() if p.name.isdecimal())

    @cached_property
    def answers(self) -> dict[str, dict[str, Any]]:
        """What each act gives here, in copies of the run."""
        found = {}
        for name, act in ACTS.items():
            run = self.folder.parent / "healthy"
            copied(self.folder, run)
            prepare(name, run, self.steps)
            end, result = act(run)
            assert end.status == 0, end
            found[name] = result
        return found


def copied(source: Path, target: Path) -> None:
    """Copies a run in the place of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def prepare(act: str, run: Path, steps: list[int]) -> None:
    """Leaves something to do for an act, as a kill would."""
    if act in ("resume", "report"):
        shutil.rmtree(run / "report")
        (run / "MODEL_CARD.md").unlink()
    if act == "resume":
        shutil.rmtree(run / "checkpoints" / str(steps[-1]))
        (run / "checkpoints" / f"{steps[-1]}{WHOLE}").unlink()


def lines_of(path: Path) -> list[str]:
    """The lines of a file; none where there is none."""
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def report_of(folder: Path) -> dict[str, Any]:
    """The answers of an evaluation."""
    return {name: lines_of(folder / name) for name in ("predictions.jsonl", "focus_accuracy.jsonl", "summary.md")}


def train_it(run: Path) -> tuple[Ended, dict[str, Any]]:
    """Goes on with a run, and gives its answers, its records and the weights of its last checkpoint."""
    end = Command("fit_jax.train", ["--config", "tiny.yaml", "--run_dir", run.name], run.parent).end()
    if end.status:
        return end, {}
    last = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdecimal())
    result = report_of(run / "report") | {"weights": runs.weights(run, str(last))}
    try:
        records = read_metrics(run / "metrics.jsonl")
        result["records"] = [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in records]
    except InputError:  # damaged, and nobody read it
        result["records"] = None
    return end, result


def report_it(run: Path) -> tuple[Ended, dict[str, Any]]:
    """Makes the report of a run that is trained; who does not train reads no records and writes no weights."""
    end, result = train_it(run)
    return end, {name: value for name, value in result.items() if name not in ("records", "weights")}


def evaluate_it(run: Path) -> tuple[Ended, dict[str, Any]]:
    """Evaluates the last checkpoint once more."""
    end = Command("fit_jax.evaluate", [run.name, "--checkpoint", "last", "--name", "again"], run.parent).end()
    return end, report_of(run / "evaluations" / "again")


def steer_it(which: str) -> Callable[[Path], tuple[Ended, dict[str, Any]]]:
    """Asks a checkpoint."""

    def act(run: Path) -> tuple[Ended, dict[str, Any]]:
        end = Command("fit_jax.steer", [run.name, *ASKED, "--checkpoint", which], run.parent).end()
        return end, {"answers": end.output}

    return act


ACTS: dict[str, Callable[[Path], tuple[Ended, dict[str, Any]]]] = {
    "resume": train_it,
    "report": report_it,
    "evaluate": evaluate_it,
    "steer best": steer_it("best"),
    "steer last": steer_it("last"),
}


def damage(random: Random, run: Path) -> list[str]:
    """Damages files of a run that are read again; what was done, a line each."""
    steps = sorted((p for p in (run / "checkpoints").iterdir() if p.name.isdecimal()), key=lambda path: int(path.name))
    kind = random.choice(("checkpoint", "checkpoint", "checkpoints", "others"))
    if kind == "others":
        files = [path for pattern in READ for path in run.glob(pattern)]
    else:
        hit = steps[-1:] if kind == "checkpoint" else steps
        files = [path for step in hit for path in (*step.rglob("*"), step.with_name(f"{step.name}{WHOLE}"))]
    files = sorted(path for path in files if path.is_file() and path.stat().st_size)
    if kind != "others" and random.random() < 0.5:  # where the arrays are
        files = [path for path in files if path.parent.name == "d"] or files
    done = []
    for path in random.sample(files, min(len(files), random.choice((1, 1, 1, 2, 100)))):
        name = path.relative_to(run).as_posix()
        before, twin = path.read_bytes(), _twin(random, path, steps)
        choice = random.random()
        if choice < 0.12:
            path.unlink()
            done.append(f"{name} deleted")
        elif choice < 0.3 and twin is not None:
            path.write_bytes(twin.read_bytes())
            twin.write_bytes(before)
            done.append(f"{name} swapped with {twin.relative_to(run).as_posix()}")
        else:
            change = random.choice(CHANGES)
            path.write_bytes(change(random, before))
            done.append(f"{name} {change.__name__}")
    return done


def _twin(random: Random, path: Path, steps: list[Path]) -> Path | None:
    """A file that another one may be mistaken for: the same of another checkpoint, or one beside it."""
    for step in steps:
        if step in path.parents:
            others = [other / path.relative_to(step) for other in steps if other != step]
            places = [p for other in others for p in ([other] if other.is_file() else other.parent.glob("*"))]
            break
    else:
        places = [p for p in path.parent.glob(f"*{path.suffix}") if p != path]
    places = sorted(p for p in places if p.is_file() and p.stat().st_size and p.read_bytes() != path.read_bytes())
    return random.choice(places) if places else None


def damaged_run(random: Random, folder: Path, healthy: Healthy) -> list[str]:
    """Damages a run and lets a command work with it; what is wrong then, a line each.

    The command must give what it gives of the healthy run, or end with one line that advises nothing against a
    checkpoint that was not damaged. Where it said that sums are missing, it may give something else.
    """
    run, act = folder / "damaged", random.choice(list(ACTS))
    expected = healthy.answers[act]
    copied(healthy.folder, run)
    prepare(act, run, healthy.steps)
    done = damage(random, run)
    begun = time.monotonic()
    end, result = ACTS[act](run)
    lines = [line for line in end.errors.strip().splitlines() if line and not line.startswith("note: ")]
    what = f"{act} after {len(done)} damages, {', '.join(done[:3])}"
    if end.status == 2 and len(lines) == 1:
        advised = _ADVICE.search(lines[0])
        if advised and not any(
            f"checkpoints/{advised[1]}/" in line or f"/{advised[1]}{WHOLE}" in line for line in done
        ):
            return [f"{what}: advice against a healthy checkpoint: {lines[0][-300:]}"]
        return []
    if end.status:
        took = f"status {end.status}, {len(lines)} lines, {time.monotonic() - begun:.0f} s"
        return [f"{what}: {took}: {' | '.join(lines[-2:])[:300]}"]
    apart = [name for name in expected if expected[name] != result.get(name)]
    if apart and UNCHECKED not in end.output + end.errors:
        return [f"{what}: status 0 without a word, and other {', '.join(apart)}"]
    return []
