"""`metrics.jsonl` and TensorBoard: one record a logged step, exact again after a crash."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fit_jax.errors import InputError, cannot_write
from fit_jax.files import check_outputs, replace_with
from fit_jax.foreign import named, quoted, read_records, shown
from fit_jax.training.display import Display
from fit_jax.training.step import StepMetrics

# Fields of a record that no two runs share.
TIMING_FIELDS = ("seconds", "tokens_per_second", "examples_per_second")
# Begins the names of what a training method says of itself in the records of validations.
FIGURE = "method_"
# The folder of a run that TensorBoard reads.
TENSORBOARD = "tensorboard"


@dataclass
class Totals:
    """Sums over the steps since the last record, of `StepMetrics` and its parts; `tokens` counts rehearsal's too."""

    steps: int = 0
    loss: float = 0.0
    targets: int = 0
    correct: int = 0
    tokens: int = 0
    target_tokens: int = 0
    examples: int = 0
    rehearsal_loss: float = 0.0
    rehearsal_divergence: float = 0.0
    rehearsal_targets: int = 0
    uneven: float = 0.0

    def add(self, metrics: StepMetrics) -> None:
        """Adds one step's sums."""
        self.steps += 1
        self.loss += float(metrics.sums.loss)
        self.targets += int(metrics.sums.targets)
        self.correct += int(metrics.sums.correct)
        self.tokens += int(metrics.tokens)
        self.target_tokens += int(metrics.target_tokens)
        self.examples += int(metrics.examples)
        if metrics.rehearsal is not None:
            self.tokens += int(metrics.rehearsal.tokens)
            self.rehearsal_loss += float(metrics.rehearsal.loss)
            self.rehearsal_divergence += float(metrics.rehearsal.divergence)
            self.rehearsal_targets += int(metrics.rehearsal.targets)
        if metrics.uneven is not None:
            self.uneven += float(metrics.uneven)

    def record(self, step: int, learning_rate: float, grad_norm: float, seconds: float) -> dict[str, Any]:
        """The record of a logged step: means per target and sums since the last record, of rehearsal too.

        Args:
            step: Optimizer steps done.
            learning_rate: The last step's.
            grad_norm: The last step's.
            seconds: Training time since the last record.
        """
        more = {}
        if self.rehearsal_targets:
            more = {
                "rehearsal_loss": self.rehearsal_loss / self.rehearsal_targets,
                "rehearsal_kl": self.rehearsal_divergence / self.rehearsal_targets,
                "rehearsal_tokens": self.rehearsal_targets,
            }
        if self.uneven:
            more["expert_imbalance"] = self.uneven / self.steps
        return {
            "step": step,
            "loss": self.loss / self.targets,
            "target_accuracy": self.correct / self.targets,
            "tokens": self.tokens,
            "target_tokens": self.target_tokens,
            "examples": self.examples,
            **more,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self.tokens / max(seconds, 1e-9), 1),
            "examples_per_second": round(self.examples / max(seconds, 1e-9), 1),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `Totals(**values)` is the same again."""
        return dataclasses.asdict(self)


class MetricsLog:
    """Appends records to `metrics.jsonl` and to TensorBoard files under `tensorboard/`."""

    def __init__(self, folder: Path, size: int, step: int, digest: str | None = None) -> None:
        """Continues the log of a run as it was when it had `size` bytes and `step` steps were done.

        Args:
            folder: The run's.
            size: In bytes.
            step: Optimizer steps done.
            digest: The SHA-256 of these bytes, where it is known.

        Raises:
            InputError: The file holds less than that or something else, is no file or cannot be written.
        """
        check_outputs(folder, ("metrics.jsonl",), (TENSORBOARD,))
        self._folder = folder
        self._step = step
        self._path = folder / "metrics.jsonl"
        self._sum = hashlib.sha256(_cut(self._path, size, digest))
        self._file = open(self._path, "ab")  # noqa: SIM115  closed by close()
        self._board: Any = None

    def write(self, record: Mapping[str, object]) -> None:
        """Appends one record.

        Raises:
            InputError: The disk is full.
        """
        line = json.dumps(record).encode() + b"\n"
        self._sum.update(line)
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise cannot_write(
                named(self._path), error, "then start again: the run goes on from its last checkpoint"
            ) from error
        if self._board is None:
            from tensorboardX import SummaryWriter  # takes seconds, so not before training is under way

            self._board = SummaryWriter(str(self._folder / TENSORBOARD), purge_step=self._step + 1)
        for name, value in scalars(record).items():
            self._board.add_scalar(name, value, record["step"])

    def sync(self) -> tuple[int, str]:
        """Waits until the disk holds every record; returns the file's size in bytes and its SHA-256."""
        os.fsync(self._file.fileno())
        return self._file.tell(), self._sum.hexdigest()

    def close(self) -> None:
        """Ends the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class Records:
    """Where a run's records go: into the log of the lead process, onto a person's screen, and to who else follows."""

    def __init__(
        self,
        log: MetricsLog | None,
        display: Display,
        follow: Callable[[Mapping[str, Any]], None] = lambda record: None,
    ) -> None:
        """`log` is None on every process but the lead; `follow` is called with every record."""
        self._log = log
        self._display = display
        self._follow = follow

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        self._display.advance(step)

    def write(self, record: Mapping[str, object]) -> None:
        """Shows a record, appends it to the log and hands it on."""
        self._display.record(record)
        if self._log is not None:
            self._log.write(record)
        self._follow(record)

    def sync(self) -> tuple[int, str | None]:
        """Waits until the disk holds every record; returns size and SHA-256 of the log, 0 and None without one."""
        return (0, None) if self._log is None else self._log.sync()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`.

    Raises:
        InputError: The file is missing or damaged.
    """
    remedy = "put that file back from a copy, or train again in a new folder"
    records = read_records(path, remedy)
    for number, record in enumerate(records, 1):
        for name, value in record.items():
            if not isinstance(value, int | float):
                raise InputError(f"{named(path)}, line {number}: {shown(name)} is {quoted(value)}, no number; {remedy}")
    return records


def _cut(path: Path, size: int, digest: str | None) -> bytes:
    """Shortens a file to its first `size` bytes in one step; returns these."""
    content = path.read_bytes() if path.exists() else b""
    if len(content) < size:
        raise InputError(
            f"{named(path)} holds {len(content)} bytes, its checkpoint knows of {size}; "
            "put the whole file back, or start in a new run folder"
        )
    kept = content[:size]
    if digest is not None and hashlib.sha256(kept).hexdigest() != digest:
        raise InputError(
            f"{named(path)} is not what its checkpoint knows; put it back from a copy, or start in a new run folder"
        )
    if len(content) > size:
        replace_with(path, lambda partial: partial.write_bytes(kept))
    return kept


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record by the names that boards group: `train/loss`, `validation/loss`."""
    return {_board_name(name): v for name, v in record.items() if name != "step" and math.isfinite(v)}


def _board_name(name: str) -> str:
    kind, _, rest = name.partition("_")
    return f"validation/{rest}" if kind == "validation" else f"train/{name}"
