"""The training loop: steps, records, validation, checkpoints, and the ways a run can end."""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from fit_jax.config import TrainConfig
from fit_jax.data.loader import TrainLoader
from fit_jax.data.packing import Batch
from fit_jax.errors import RunFailed
from fit_jax.parallel.processes import maximum_over_processes, rows_of_this_process, to_global
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.display import Display
from fit_jax.training.metrics import MetricsLog, Totals
from fit_jax.training.state import TrainState
from fit_jax.training.step import StepMetrics
from fit_jax.training.stopping import Stopping

# Batches on the devices ahead of the step that needs them.
AHEAD = 2

Finished = Literal["steps", "patience"]


class TrainingFailed(RunFailed):
    """Training cannot go on; the last checkpoint is intact."""


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


class Loop:
    """Trains until the last step, until patience ends, or until the process is told to stop.

    Step n is dispatched before the metrics of step n - 1 are read, so that the devices never wait for the host.
    """

    def __init__(
        self,
        config: TrainConfig,
        steps: int,
        mesh: Mesh,
        loader: TrainLoader,
        train_step: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]],
        validate: Callable[[Any], dict[str, float]],
        checkpoints: Checkpoints,
        log: MetricsLog | None,
        display: Display,
    ) -> None:
        """Args are the parts of a run; `log` is None on every process but the lead."""
        self._config = config
        self._steps = steps
        self._mesh = mesh
        self._loader = loader
        self._train_step = train_step
        self._validate = validate
        self._checkpoints = checkpoints
        self._log = log
        self._display = display
        self._clock = _Clock()

    def run(self, state: TrainState, progress: Progress) -> TrainState:
        """Trains from `progress` on, which is brought up to date, and returns the last state.

        Raises:
            TrainingFailed: The loss, on training or validation data, or the gradient is not finite.
        """
        rows = rows_of_this_process(self._config.batch_size, self._mesh)
        batches = self._loader.iterate(progress.step, self._steps, rows)
        pending: StepMetrics | None = None
        with stop_requests() as stop_requested, closing(batches), jax.transfer_guard("disallow"):
            self._clock.start()
            for batch in _on_devices(batches, self._mesh):
                state, metrics = self._train_step(state, batch)
                if pending is not None:
                    self._take_in(pending, progress)
                pending = metrics
                step = progress.step + 1
                stop = stop_requested(step)
                if stop or self._is_event(step):
                    self._take_in(pending, progress, state)
                    pending = None
                    with jax.transfer_guard("allow"):
                        self._save_where_due(state, progress, stop)
                    self._clock.start()
                    if stop or progress.finished:
                        break
        self._checkpoints.wait()
        return state

    def _is_event(self, step: int) -> bool:
        """Whether the state after this step is needed, so that its metrics are to be read at once."""
        config = self._config
        return step == self._steps or _due(step, config.validate_every) or _due(step, config.checkpoint_every)

    def _take_in(self, metrics: StepMetrics, progress: Progress, state: TrainState | None = None) -> None:
        """Reads a step's metrics, validates and writes a record where due; waits for the step.

        Args:
            metrics: Of the step after `progress.step`.
            progress: Moves on by that step.
            state: The state after the step, where it is at hand and not yet donated; only then can be validated.
        """
        sums, tokens, examples, grad_norm, learning_rate = jax.device_get(metrics)
        step = progress.step + 1
        if not math.isfinite(sums.loss) or not math.isfinite(grad_norm):
            raise TrainingFailed(
                f"loss {sums.loss / sums.targets:.4g} with gradient norm {grad_norm:.4g} at step {step}: "
                f"lower optimizer.learning_rate or look at the data; last checkpoint: {self._last_checkpoint()}"
            )
        progress.step = step
        progress.totals.add(float(sums.loss), int(sums.targets), int(sums.correct), int(tokens), int(examples))
        self._display.advance(step)
        validation = {}
        if state is not None and (step == self._steps or _due(step, self._config.validate_every)):
            self._clock.stop()
            with jax.transfer_guard("allow"):
                validation = self._validate(state.params)
            if not math.isfinite(validation["validation_loss"]):
                raise TrainingFailed(
                    f"validation loss {validation['validation_loss']:.4g} at step {step}: "
                    f"lower optimizer.learning_rate; last checkpoint: {self._last_checkpoint()}"
                )
            progress.stopping.update(step, validation)
            self._clock.start()
        if validation or step == self._steps or _due(step, self._config.log_every):
            record = (
                progress.totals.record(step, float(learning_rate), float(grad_norm), self._clock.lap()) | validation
            )
            progress.totals = Totals()
            self._display.record(record)
            if self._log is not None:
                self._log.write(record)

    def _save_where_due(self, state: TrainState, progress: Progress, stop: bool) -> None:
        """Decides whether the run is over, and saves at the end, at a new best, when due and when told to stop."""
        stopping, step = progress.stopping, progress.step
        if step == self._steps:
            progress.finished = "steps"
        elif stopping.exhausted:
            progress.finished = "patience"
        is_best = stopping.best_step == step
        if stop or progress.finished or is_best or _due(step, self._config.checkpoint_every):
            self._clock.stop()
            progress.metrics_bytes = 0 if self._log is None else self._log.sync()
            marks = self._loader.state(step)
            progress.loader = marks | {"marks": maximum_over_processes(marks["marks"])}
            self._checkpoints.save(step, state, progress.to_json(), stopping.best_step)

    def _last_checkpoint(self) -> str:
        steps = self._checkpoints.steps()
        return f"step {steps[-1]}" if steps else "none"


class _Clock:
    """Training time between records, without pauses."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def stop(self) -> None:
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None

    def lap(self) -> float:
        """Seconds since the last lap."""
        self.stop()
        seconds, self._seconds = self._seconds, 0.0
        self.start()
        return seconds


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _on_devices(batches: Iterable[Batch], mesh: Mesh) -> Iterator[Batch]:
    """The batches as global arrays; the next ones are on their way while one is used."""
    waiting: deque[Batch] = deque()
    for batch in batches:
        waiting.append(to_global(batch, mesh))
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Tells, step by step, whether the machine wants the process to end (SIGTERM), alike on every process."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield multihost_utils.reached_preemption_sync_point
        return
    requests: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: requests.append(number))
    try:
        yield lambda step: bool(requests)
    finally:
        signal.signal(signal.SIGTERM, before)
