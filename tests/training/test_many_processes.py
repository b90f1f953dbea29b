"""Two processes train one run; one is killed, one is told to stop, and a single process ends the run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fit_jax.config import load_config
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import claimed
from fit_jax.runs.trainer import Ending, train
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics

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


class Job:
    """`count` processes of one device each that train a run."""

    def __init__(self, run: Path, count: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
        command = [
            sys.executable,
            "-m",
            "fit_jax.train",
            "--config",
            str(run.parent / "run.yaml"),
            "--run_dir",
            str(run),
        ]
        self.processes = []
        for number in range(count):
            place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(number)}
            env = os.environ | {"XLA_FLAGS": flags} | place
            self.processes.append(
                subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )

    def signal(self, number: int, sent: signal.Signals, metrics: Path, lines: int) -> None:
        """Sends a signal to one process once the run has logged so many steps."""
        process = self.processes[number]
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= lines):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        process.send_signal(sent)

    def outcome(self) -> list[tuple[int, str]]:
        """Exit status and output of each process, when all have ended."""
        outputs = [process.communicate(timeout=120)[0] for process in self.processes]
        return [(process.returncode, output) for process, output in zip(self.processes, outputs)]


def alone(run: Path) -> Ending:
    """Trains the run in this process, on its eight devices."""
    config = load_config(["--config", str(run.parent / "run.yaml"), "--run_dir", str(run)])
    with claimed(config):
        return train(set_up(config, trains=True))


def records(run: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in read_metrics(run / "metrics.jsonl")]


@pytest.mark.timeout(300)
def test_processes_fail_stop_and_resume_together(tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG)
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert alone(straight) is Ending.ALL_STEPS

    job = Job(run, 2)
    job.signal(1, signal.SIGKILL, run / "metrics.jsonl", lines=18)
    (status, output), (killed, _) = job.outcome()
    assert killed == -signal.SIGKILL
    assert status not in (0, -signal.SIGKILL)
    assert "process 0 of 2" in output or "another task died" in output

    job = Job(run, 2)
    job.signal(1, signal.SIGTERM, run / "metrics.jsonl", lines=len(records(run)) + 5)
    (status, output), (other_status, _) = job.outcome()
    assert (status, other_status) == (0, 0)
    assert "resuming after step 10" in output
    assert "told to stop" in output

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
    assert [status for status, _ in Job(straight, 1).outcome()] == [0]

    job = Job(run, before)
    job.signal(0, signal.SIGTERM, run / "metrics.jsonl", lines=12)
    stopped = job.outcome()
    assert [status for status, _ in stopped] == [0] * before
    assert "told to stop" in stopped[0][1]

    resumed = Job(run, after).outcome()
    assert [status for status, _ in resumed] == [0] * after, resumed
    assert "resuming after step" in resumed[0][1]
    for row, expected in zip(records(run), records(straight), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-6)
