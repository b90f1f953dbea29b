"""Two processes train one run; one is killed, one is told to stop, and a single process ends the run."""

import shutil
import signal
from pathlib import Path

import pytest

from fit_jax.config import load_config
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import claimed, held
from fit_jax.runs.trainer import Ending, train
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from tests.processes import Job

CONFIG = """
seed: 3
focus: {branches: 2}
task: {train_examples: 96, validation_examples: 16, test_examples: 2}
tokenizer: {vocab_size: 300}
model: {layers: 1, width: 16, feed_forward: 24, heads: 2, kv_heads: 1, dropout: 0.1}
train: {steps: 60, batch_size: 8, sequence_length: 256, log_every: 1, validate_every: 20, checkpoint_every: 10}
evaluation: {validation_examples: 8}
mesh: {timeout: 20}
"""


def job(run: Path, count: int) -> Job:
    """`count` processes of one device each that train a run."""
    return Job(run.parent, ["--config", "run.yaml", "--run_dir", run.name], count)


def alone(run: Path) -> Ending:
    """Trains the run in this process, on its eight devices."""
    config = load_config(["--config", str(run.parent / "run.yaml"), "--run_dir", str(run)])
    with claimed(config):
        return train(set_up(config, trains=True))


def records(run: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in read_metrics(run / "metrics.jsonl")]


def check_told(together: Job, said: str) -> None:
    """Each process ends with one line and the same status: the lead with what it alone has found, the other with so
    much."""
    ends = together.end()
    assert [end.status for end in ends] == [2, 2], ends
    assert [end.errors.count("\n") for end in ends] == [1, 1], ends
    assert said in ends[0].errors
    assert "process 0 of the job tells what is wrong" in ends[1].errors


def test_a_folder_in_use_is_told_by_all(tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "run").mkdir()
    with held(tmp_path / "run"):
        check_told(job(tmp_path / "run", 2), "another process is at work in this folder")


@pytest.mark.timeout(300)
def test_processes_fail_stop_and_resume_together(tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG)
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert alone(straight) is Ending.ALL_STEPS

    together, metrics = job(run, 2), run / "metrics.jsonl"
    together.wait_for(metrics, 18)
    assert together.commands[1].signal(signal.SIGKILL)
    lead, killed = together.end()
    assert killed.status == -signal.SIGKILL
    assert lead.status not in (0, -signal.SIGKILL)
    assert "another process of the job has ended" in lead.errors or "another task died" in lead.errors
    assert "Traceback" not in lead.errors

    together = job(run, 2)
    together.wait_for(metrics, len(records(run)) + 5)
    assert together.commands[1].signal(signal.SIGTERM)
    lead, other = together.end()
    assert (lead.status, other.status) == (0, 0)
    assert "resuming after step 10" in lead.output
    assert "told to stop" in lead.output

    shutil.copytree(run, cut := tmp_path / "cut")
    (cut / "metrics.jsonl").write_text("")
    check_told(job(cut, 2), "metrics.jsonl")

    assert alone(run) is Ending.ALL_STEPS
    for row, expected in zip(records(run), records(straight), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize("before", [2, 4])
def test_told_to_stop_and_started_as_another_number_of_processes(before, after, tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG.replace("steps: 60", "steps: 30"))
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert [end.status for end in job(straight, 1).end()] == [0]

    together = job(run, before)
    together.wait_for(run / "metrics.jsonl", 12)
    assert together.commands[0].signal(signal.SIGTERM)
    stopped = together.end()
    assert [end.status for end in stopped] == [0] * before
    assert "told to stop" in stopped[0].output

    resumed = job(run, after).end()
    assert [end.status for end in resumed] == [0] * after, resumed
    assert "resuming after step" in resumed[0].output
    for row, expected in zip(records(run), records(straight), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
