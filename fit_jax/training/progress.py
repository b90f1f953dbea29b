"""How far a run has come, as its checkpoints keep it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from fit_jax.training.metrics import Totals
from fit_jax.training.stopping import Stopping

Finished = Literal["steps", "patience"]


@dataclass
class Progress:
    """What a checkpoint holds besides the training state.

    Attributes:
        stopping: Best validation and patience.
        totals: Sums since the last record.
        step: Optimizer steps done.
        metrics_bytes: Size of `metrics.jsonl`.
        loader: The loader's state.
        finished: Why the run is over; None while it is not.
    """

    stopping: Stopping
    totals: Totals = field(default_factory=Totals)
    step: int = 0
    metrics_bytes: int = 0
    loader: dict[str, Any] | None = None
    finished: Finished | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for `from_json`."""
        return vars(self) | {"stopping": self.stopping.to_json(), "totals": self.totals.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """Reads what `to_json` gave."""
        return cls(
            **values | {"stopping": Stopping(**values["stopping"]), "totals": Totals(**values["totals"])},
        )
