"""The training loop: steps, records, validation, checkpoints, and the ways a run can end."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from signal import SIGTERM
from typing import Generic

import jax

from fit_jax import signals
from fit_jax.config import TrainConfig
from fit_jax.data.sampler import BatchType
from fit_jax.errors import RunFailed
from fit_jax.models.decoder import Params
from fit_jax.parallel.processes import Agreement
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.metrics import Records, Totals
from fit_jax.training.progress import Progress
from fit_jax.training.state import TrainState
from fit_jax.training.step import StepMetrics
from fit_jax.training.stream import BatchStream
from fit_jax.training.trace import Trace


class TrainingFailed(RunFailed):
    """Training cannot go on; the last checkpoint is intact."""


@dataclass(frozen=True)
class Events:
    """After which of a run's steps something is due."""

    steps: int
    log_every: int
    validate_every: int | None
    checkpoint_every: int

    @classmethod
    def of(cls, config: TrainConfig, steps: int) -> "Events":
        """Those of a run of `steps` steps."""
        return cls(steps, config.log_every, config.validate_every, config.checkpoint_every)

    def logs(self, step: int) -> bool:
        """Whether a record is written."""
        return self.validates(step) or step % self.log_every == 0

    def validates(self, step: int) -> bool:
        """Whether the model is validated."""
        return step == self.steps or (self.validate_every is not None and step % self.validate_every == 0)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written in any case."""
        return step == self.steps or step % self.checkpoint_every == 0

    def saves_after(self, step: int) -> int:
        """Checkpoints written after a step, at most: when due, and at each validation that is the best so far."""
        left = self.steps - step
        return 1 + left // self.checkpoint_every + (left // self.validate_every if self.validate_every else 0)


class Loop(Generic[BatchType]):
    """Trains until the last step, until patience ends, or until the process is told to stop.

    Step n is dispatched before the metrics of step n - 1 are read, so that the devices never wait for the host.

    Attributes:
        stopped: Whether the process was told to stop, if only at the last step.
    """

    def __init__(
        self,
        events: Events,
        batches: BatchStream[BatchType],
        train_step: Callable[[TrainState, BatchType], tuple[TrainState, StepMetrics]],
        validate: Callable[[Params], dict[str, float]],
        checkpoints: Checkpoints,
        records: Records,
        trace: Trace,
    ) -> None:
        """Takes the parts of a run.

        Args:
            events: What is due when.
            batches: What is trained on.
            train_step: One optimizer step; donates the state.
            validate: `validation_...` values of a model's states.
            checkpoints: Where the state is saved.
            records: Where metrics go.
            trace: Records some of the steps for a profile.
        """
        self._events = events
        self._batches = batches
        self._train_step = train_step
        self._validate = validate
        self._checkpoints = checkpoints
        self._records = records
        self._trace = trace
        self._clock = _Clock()
        self.stopped = False

    def run(self, state: TrainState, progress: Progress) -> TrainState:
        """Trains from `progress` on, which is brought up to date, and returns the last state.

        Raises:
            TrainingFailed: The loss, on training or validation data, or the gradient is not finite.
        """
        pending: StepMetrics | None = None
        batches = self._batches.iterate(progress.step, self._events.steps)
        with (
            stop_requests() as stop_requested,
            closing(batches),
            closing(self._trace),
            jax.transfer_guard("disallow"),
        ):
            self._clock.start()
            for batch in batches:
                signals.check()
                number = progress.step + (2 if pending is not None else 1)
                state, metrics = self._trace.step(number, partial(self._train_step, state, batch))
                if pending is not None:
                    self._take_in(pending, progress)
                pending = metrics
                step = progress.step + 1
                self.stopped = stop = stop_requested(False)
                if stop or self._events.validates(step) or self._events.saves(step):  # the state is needed
                    self._take_in(pending, progress, state)
                    pending = None
                    with jax.transfer_guard("allow"):
                        self._save_where_due(state, progress, stop)
                    self._clock.start()
                    if stop or progress.finished:
                        break
            self.stopped = self.stopped or stop_requested(True)  # while the last step was validated and saved
        self._checkpoints.wait()
        return state

    def _take_in(self, metrics: StepMetrics, progress: Progress, state: TrainState | None = None) -> None:
        """Reads a step's metrics, validates and writes a record where due; waits for the step.

        Args:
            metrics: Of the step after `progress.step`.
            progress: Moves on by that step.
            state: The state after the step, where it is there and not yet donated; only then can be validated.
        """
        metrics = jax.device_get(metrics)
        step, sums, grad_norm = progress.step + 1, metrics.sums, float(metrics.grad_norm)
        if not math.isfinite(sums.loss) or not math.isfinite(grad_norm):
            raise TrainingFailed(
                f"loss {sums.loss / sums.targets:.4g} with gradient norm {grad_norm:.4g} at step {step}: "
                f"lower optimizer.learning_rate or look at the data; last checkpoint: {self._last_checkpoint()}"
            )
        progress.step = step
        progress.totals.add(metrics)
        self._records.advance(step)
        validation = {}
        if state is not None and self._events.validates(step):
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
        if self._events.logs(step):
            seconds = self._clock.lap()
            record = progress.totals.record(step, float(metrics.learning_rate), grad_norm, seconds)
            progress.totals = Totals()
            self._records.write(record | validation)

    def _save_where_due(self, state: TrainState, progress: Progress, stop: bool) -> None:
        """Decides whether the run is over, and saves at the end, at a new best, when due and when told to stop."""
        stopping, step = progress.stopping, progress.step
        if step == self._events.steps:
            progress.finished = "steps"
        elif stopping.exhausted:
            progress.finished = "patience"
        is_best = stopping.best_step == step
        if stop or progress.finished or is_best or self._events.saves(step):
            self._clock.stop()
            progress.metrics_bytes, progress.metrics_sha256 = self._records.sync()
            progress.loader = self._batches.state(step)
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


@contextmanager
def stop_requests() -> Iterator[Callable[[bool], bool]]:
    """Tells, once a step, whether the machine wants a process to end (SIGTERM), alike in every process.

    Of several, each learns it one step later, and so waits for no step; at the last call, which says so, at once.
    """
    with signals.deferred(SIGTERM) as requested:
        if jax.process_count() == 1:
            yield lambda last: requested()
            return
        agreed = Agreement()
        yield lambda last: agreed(requested()) or (last and agreed(False))
