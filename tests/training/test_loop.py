"""The loop's decisions, on a model that is only a list of losses."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from fit_jax.config import TrainConfig
from fit_jax.errors import InputError
from fit_jax.training.loop import Events, Loop, TrainingFailed
from fit_jax.training.objective import LossSums
from fit_jax.training.progress import Progress
from fit_jax.training.step import StepMetrics
from fit_jax.training.stopping import Stopping
from fit_jax.training.trace import Trace


class Parts:
    """Stands for everything around the loop and notes what is asked of it."""

    def __init__(self, losses=None, validations=None, norms=None):
        self.losses, self.validations, self.norms = losses or {}, iter(validations or []), norms or {}
        self.params, self.saved, self.records, self.events = None, [], [], []

    def iterate(self, start, stop):
        yield from range(start, stop)

    def state(self, step):
        return {"stream": {}, "marks": []}

    def train_step(self, state, batch):
        step = len([e for e in self.events if e[0] == "step"]) + 1
        self.events.append(("step", step))
        loss = self.losses.get(step, 2.0)
        sums = LossSums(np.float32(loss), np.float32(2), np.float32(1))
        norm = np.float32(self.norms.get(step, 1))
        return state, StepMetrics(sums, np.int32(30), np.int32(2), np.int32(1), norm, np.float32(1e-3))

    def validate(self, params):
        self.events.append(("validate", len(self.records)))
        return {"validation_loss": next(self.validations, 1.0), "validation_focus_accuracy": 0.5}

    def save(self, step, state, progress, best):
        self.saved.append((step, best, progress["finished"]))

    def steps(self):
        return [step for step, _, _ in self.saved]

    def wait(self):
        pass

    def write(self, record):
        self.events.append(("write", record["step"]))
        self.records.append(record)

    def sync(self):
        return len(self.records), None

    def advance(self, step):
        pass


def run(steps, config, trace=None, **behaviour):
    """The parts, what a checkpoint would say, and the message of a failure."""
    parts, trace = Parts(**behaviour), trace or Trace(Path(), 0)
    progress = Progress(Stopping(config.best, config.patience))
    loop = Loop(Events.of(config, steps), parts, parts.train_step, parts.validate, parts, parts, trace)
    try:
        loop.run(parts, progress)
    except TrainingFailed as error:
        return parts, progress, str(error)
    return parts, progress, None


def test_what_is_logged_validated_and_saved_when():
    config = TrainConfig(log_every=2, validate_every=3, checkpoint_every=4)
    parts, progress, error = run(7, config, validations=[3.0, 2.0, 2.5])
    assert error is None
    assert [r["step"] for r in parts.records] == [2, 3, 4, 6, 7]
    assert [r["step"] for r in parts.records if "validation_loss" in r] == [3, 6, 7]
    assert parts.saved == [(3, 3, None), (4, 3, None), (6, 6, None), (7, 6, "steps")]
    assert sum(r["tokens"] for r in parts.records) == 7 * 30
    assert progress.finished == "steps"


def test_a_step_is_under_way_before_the_last_one_is_read():
    parts, _, _ = run(6, TrainConfig(log_every=1, validate_every=None, checkpoint_every=100))
    order = [e for e in parts.events if e in [("step", 4), ("write", 3), ("write", 4)]]
    assert order == [("step", 4), ("write", 3), ("write", 4)]


def test_every_step_is_traced_by_its_number():
    class Numbers(Trace):
        seen: ClassVar[list[int]] = []

        def step(self, number, take):
            self.seen.append(number)
            return take()

    run(5, TrainConfig(validate_every=2, checkpoint_every=3), trace=Numbers(Path(), 0))
    assert Numbers.seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_it_is_saved(value):
    config = TrainConfig(log_every=1, validate_every=None, checkpoint_every=2)
    parts, progress, error = run(20, config, losses={6: value})
    assert "at step 6" in error
    assert "last checkpoint: step 4" in error
    assert progress.finished is None
    assert [r["step"] for r in parts.records] == [1, 2, 3, 4, 5]


def test_a_gradient_that_is_not_finite_stops():
    config = TrainConfig(log_every=1, validate_every=None, checkpoint_every=2)
    parts, _, error = run(20, config, norms={3: float("nan")})
    assert "with gradient norm nan at step 3" in error
    assert [step for step, _, _ in parts.saved] == [2]


def test_a_validation_that_is_not_finite_stops():
    config = TrainConfig(validate_every=2)
    parts, _, error = run(20, config, validations=[1.0, float("nan")])
    assert "validation loss nan at step 4" in error
    assert [step for step, _, _ in parts.saved] == [2]


def test_patience_ends_training_and_keeps_the_best():
    config = TrainConfig(log_every=10, validate_every=2, checkpoint_every=100, patience=2)
    parts, progress, _ = run(100, config, validations=[3.0, 2.0, 2.0, 2.1])
    assert progress.finished == "patience"
    assert parts.saved == [(2, 2, None), (4, 4, None), (8, 4, "patience")]


def test_progress_is_the_same_after_a_round_trip():
    _, progress, _ = run(5, TrainConfig(log_every=3, validate_every=2), validations=[0.1, 0.3, 0.2])
    assert Progress.from_json(progress.to_json(), progress.step) == progress


def test_who_is_told_to_stop_during_the_last_save_does_not_go_on_to_the_report(monkeypatch):
    """Of a run whose training is over all the same."""
    save = Parts.save

    def told(self, step, *rest):
        save(self, step, *rest)
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Parts, "save", told)
    parts = Parts()
    progress = Progress(Stopping("loss", None))
    loop = Loop(Events.of(TrainConfig(), 4), parts, parts.train_step, parts.validate, parts, parts, Trace(Path(), 0))
    loop.run(parts, progress)
    assert loop.stopped
    assert progress.finished == "steps"


def test_a_last_save_that_fails_is_told(monkeypatch):
    """It is written in the background, so the loop must wait for it."""

    def full(self):
        raise InputError("cannot write checkpoints")

    monkeypatch.setattr(Parts, "wait", full)
    with pytest.raises(InputError, match="cannot write"):
        run(2, TrainConfig())


def test_the_time_of_training_is_without_validations_and_saves(monkeypatch):
    now = 0

    def takes(name, seconds):
        act = getattr(Parts, name)

        def slow(self, *arguments):
            nonlocal now
            now += seconds
            return act(self, *arguments)

        monkeypatch.setattr(Parts, name, slow)

    takes("train_step", 1)
    takes("validate", 100)
    takes("save", 1000)
    monkeypatch.setattr("fit_jax.training.loop.time", SimpleNamespace(monotonic=lambda: now))
    parts, _, _ = run(4, TrainConfig(log_every=1, validate_every=2, checkpoint_every=2))
    assert len([event for event in parts.events if event[0] == "validate"]) == 2
    assert sum(record["seconds"] for record in parts.records) == 4
