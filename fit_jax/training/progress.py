"""How far a run has come, as its checkpoints keep it."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fit_jax.training.metrics import Totals
from fit_jax.training.stopping import Stopping

Finished = Literal["steps", "patience"]
# What checkpoints of versions without rehearsal, or without a loss over the balance of experts, leave out.
_NOT_THERE = {"rehearsal_loss": 0.0, "rehearsal_divergence": 0.0, "rehearsal_targets": 0, "uneven": 0.0}


@dataclass
class Progress:
    """What a checkpoint holds besides the training state.

    Attributes:
        stopping: Best validation and patience.
        totals: Sums since the last record.
        step: Optimizer steps done.
        metrics_bytes: Size of `metrics.jsonl`.
        metrics_sha256: Of these bytes; None in checkpoints of versions that kept none.
        loader: The loader's state.
        finished: Why the run is over; None while it is not.
    """

    stopping: Stopping
    totals: Totals = field(default_factory=Totals)
    step: int = 0
    metrics_bytes: int = 0
    metrics_sha256: str | None = None
    loader: dict[str, Any] | None = None
    finished: Finished | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for `from_json`."""
        return vars(self) | {"stopping": self.stopping.to_json(), "totals": self.totals.to_json()}

    @classmethod
    def from_json(cls, values: Any, step: int) -> "Progress":
        """Reads what `to_json` gave at a step.

        Raises:
            ValueError: It is no such thing.
        """
        if isinstance(values, dict):
            values = {"metrics_sha256": None, **values}
            if isinstance(values.get("totals"), dict):
                values["totals"] = _NOT_THERE | values["totals"]
        checked = _checked(cls, values, "progress")
        checked["stopping"] = Stopping(**_checked(Stopping, values["stopping"], "stopping"))
        checked["totals"] = Totals(**_checked(Totals, values["totals"], "totals"))
        progress = cls(**checked)
        if progress.step != step:
            raise ValueError(f"it says to be of step {progress.step}")
        if progress.loader is not None:
            _check_loader(progress.loader)
        return progress


def _checked(cls: type, values: object, name: str) -> dict[str, Any]:
    """The values of a dataclass's fields, where they are of the fields' kinds and no number is negative."""
    if not isinstance(values, dict) or values.keys() != {f.name for f in fields(cls)}:
        raise ValueError(f"{name} lacks fields or has others")
    for key, kind in get_type_hints(cls).items():
        value = values[key]
        if is_dataclass(kind):
            continue
        if not _is_of(value, kind):
            raise ValueError(f"{name}.{key} is {value!r:.40}")
    return dict(values)


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return any(_is_of(value, part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind in (int, float):
        number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        return number and math.isfinite(value) and value >= 0
    return isinstance(value, kind)


def _check_loader(state: dict[str, Any]) -> None:
    """A loader's state: what tells its stream, and marks of whole numbers."""
    stream, marks = state.get("stream"), state.get("marks")
    if state.keys() != {"stream", "marks"} or not isinstance(stream, dict) or not isinstance(marks, list):
        raise ValueError("the loader's state lacks fields or has others")
    numbers = [*stream.values(), *(n for mark in marks for n in (mark if isinstance(mark, list) else [None]))]
    if not all(_is_of(number, int) for number in numbers):
        raise ValueError("the loader's state holds what is no whole number")
