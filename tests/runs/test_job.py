"""The whole job of a run: what is reported on, and that what may have changed is asked for once."""

import signal
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from fit_jax import signals
from fit_jax.config import Config
from fit_jax.runs import job
from fit_jax.runs.trainer import Ending


@pytest.fixture
def done(monkeypatch, tmp_path):
    """What a job did, of a training that ends as told and a run that was reported on as told."""

    def do(ending: Ending, reported: bool, **given) -> list:
        run = SimpleNamespace(folder=tmp_path / "run")
        acts = []
        monkeypatch.setattr(job, "set_up", lambda config, trains, changed: acts.append((trains, changed)) or run)
        monkeypatch.setattr(job, "tracked", lambda run: nullcontext(SimpleNamespace(write_table=lambda *table: None)))
        monkeypatch.setattr(job, "train", lambda run, trackers: ending)
        monkeypatch.setattr(job, "has_report", lambda run: reported)
        monkeypatch.setattr(job, "evaluate_run", lambda run: acts.append("report") or {})
        monkeypatch.setattr(job, "focus_tables", lambda predictions: ((), ()))
        job.train_and_report(Config(run_dir=str(tmp_path / "run")), **given)
        return acts

    return do


@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize("ending", Ending)
def test_a_model_is_reported_on_once(done, ending, reported):
    """A training that comes to its end renews the report; a finished run gets the one that it lacks."""
    expected = {Ending.ALL_STEPS: True, Ending.PATIENCE: True, Ending.ALREADY: not reported, Ending.STOPPED: False}
    assert ("report" in done(ending, reported)) == expected[ending]


def test_changed_inputs_are_accepted_where_that_is_said(done):
    assert done(Ending.STOPPED, False) == [(True, "refuse")]
    assert done(Ending.STOPPED, False, changed="accept") == [(True, "accept")]


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (False, "nothing was saved yet; the same command starts over"),
        (True, "the same command goes on from the last checkpoint"),
    ],
)
def test_who_interrupts_training_learns_what_is_kept(done, monkeypatch, tmp_path, saved, said):
    def interrupted(run, trackers):
        if saved:
            (tmp_path / "run" / "checkpoints" / "20").mkdir(parents=True)
        raise KeyboardInterrupt

    def end():
        monkeypatch.setattr(job, "train", interrupted)
        job.train_and_report(Config(run_dir=str(tmp_path / "run")))

    done(Ending.STOPPED, False)
    assert signals.words(signal.SIGINT) == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        end()
    try:
        assert signals.words(signal.SIGINT) == f"interrupted: {said}"
    finally:
        with signals.telling(str):
            pass  # its end forgets what was to be said
