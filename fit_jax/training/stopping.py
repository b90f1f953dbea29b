"""Which checkpoint is the best, and when training no longer gets better."""

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass
class Stopping:
    """Best validation so far by one measure; early stopping after `patience` validations without a better one.

    Attributes:
        measure: `loss` (lower is better), `focus_accuracy` or `worst_group` (higher is better).
        patience: Validations without improvement before training stops; None means never.
        best_value: The best value so far.
        best_step: The step it was measured at.
        waited: Validations since.
    """

    measure: str
    patience: int | None
    best_value: float | None = None
    best_step: int | None = None
    waited: int = 0

    def update(self, step: int, validation: dict[str, float]) -> None:
        """Takes in a validation."""
        value = validation[f"validation_{self.measure}"]
        sign = -1 if self.measure == "loss" else 1
        if self.best_value is None or sign * value > sign * self.best_value:
            self.best_value, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return self.patience is not None and self.waited >= self.patience

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `Stopping(**values)` is the same again."""
        return dataclasses.asdict(self)
