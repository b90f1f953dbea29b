"""What a person sees of a training run: a progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fit_jax.foreign import printable


class Display:
    """Shows a run; silent where `shown` is false (all processes but the lead)."""

    def __init__(self, total: int, done: int, shown: bool = True) -> None:
        """Starts at `done` of `total` steps."""
        self._total = total
        self._start = done
        self._began = time.monotonic()
        self._shown = shown
        self._bar: Any = None
        if shown and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[status]}"),
            )
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("training", total=total, completed=done, status="")
            self._bar.start()

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def record(self, record: Mapping[str, Any]) -> None:
        """Shows a logged step's record."""
        parts = [
            f"loss {record['loss']:.4f}",
            f"target accuracy {record['target_accuracy']:.3f}",
            f"{record['tokens_per_second']:,.0f} tokens/s",
        ]
        if "rehearsal_loss" in record:
            parts.insert(1, f"rehearsal loss {record['rehearsal_loss']:.4f}")
        if "expert_imbalance" in record:
            parts.insert(1, f"expert imbalance {record['expert_imbalance']:.3f}")
        if "validation_loss" in record:
            parts.append(
                f"validation loss {record['validation_loss']:.4f}, "
                f"focus accuracy {record['validation_focus_accuracy']:.3f}"
            )
        if self._bar is not None:
            self._bar.update(self._task, status=" | ".join(parts))
        else:
            step = record["step"]
            parts.append(f"ETA {self._remaining(step)}")
            self.note(f"step {step}/{self._total} | " + " | ".join(parts))

    def note(self, text: str) -> None:
        """Shows a line that stays."""
        text = printable(text)  # it may hold words of the data
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif self._shown:
            print(text, flush=True)

    def close(self) -> None:
        """Gives the terminal back."""
        if self._bar is not None:
            self._bar.stop()

    def _remaining(self, step: int) -> timedelta:
        """Time to the end at the mean speed so far."""
        per_step = (time.monotonic() - self._began) / max(step - self._start, 1)
        return timedelta(seconds=round(per_step * (self._total - step)))
