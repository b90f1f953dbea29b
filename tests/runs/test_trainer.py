"""A run that is killed, told to stop, or moved to other devices goes on as though nothing had happened."""

import os
import random
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint
import pytest

from fit_jax.config import Config, load_config
from fit_jax.data.loader import TrainLoader
from fit_jax.errors import InputError
from fit_jax.methods import training_method
from fit_jax.runs import run as runs
from fit_jax.runs.run import load_model, open_checkpoints, set_up
from fit_jax.runs.run_folder import CARD, claimed
from fit_jax.runs.trainer import Ending, train
from fit_jax.training.display import Display
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from fit_jax.training.progress import Progress
from fit_jax.training.stopping import Stopping
from tests.processes import Job

TINY = """
seed: 3
focus: {branches: 2}
optimizer: {learning_rate: 0.003, warmup: 0.1}
task: {train_examples: 96, validation_examples: 16, test_examples: 8}
tokenizer: {vocab_size: 300}
model: {layers: 1, width: 16, feed_forward: 24, heads: 2, kv_heads: 1, dropout: 0.1}
train: {steps: 14, batch_size: 8, sequence_length: 256, log_every: 2, validate_every: 5, checkpoint_every: 3, keep: 2}
evaluation: {validation_examples: 8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def config_of(run, *options: str) -> Config:
    return load_config(["--config", str(run.parent / "tiny.yaml"), "--run_dir", str(run), *options])


def start(config: Config) -> Ending:
    with claimed(config):
        return train(set_up(config, trains=True))


def spawn(run, devices: int) -> Job:
    return Job(run.parent, ["--config", "tiny.yaml", "--run_dir", run.name], devices=devices)


def records(run) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in read_metrics(run / "metrics.jsonl")]


@pytest.fixture(scope="module")
def straight(folder):
    run = folder / "straight"
    assert start(config_of(run, "--train.profile", "2")) is Ending.ALL_STEPS
    return run


def test_records_have_the_fields_that_readers_rely_on(straight):
    rows = read_metrics(straight / "metrics.jsonl")
    assert [r["step"] for r in rows] == [2, 4, 5, 6, 8, 10, 12, 14]
    wanted = {"step", "loss", "tokens", "target_tokens", "examples", "tokens_per_second", "learning_rate"}
    assert all(wanted <= set(row) for row in rows)
    assert [r["step"] for r in rows if "validation_loss" in r] == [5, 10, 14]
    assert all(row["tokens"] > row["target_tokens"] > row["examples"] > 0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert list((straight / "tensorboard").glob("events.*"))
    assert list((straight / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"))


def test_unpacked_rows_train_in_batches_of_several_widths(folder):
    run = folder / "unpacked"
    assert start(config_of(run, "--train.packing", "false", "--train.steps", "4")) is Ending.ALL_STEPS
    opened = set_up(config_of(run, "--train.packing", "false", "--train.steps", "4"), trains=True)
    loader = TrainLoader(training_method(opened.task, opened.config).sampler, opened.encoder, opened.config)
    assert len({loader.batch(step).tokens.shape[1] for step in range(4)}) > 1
    rows = read_metrics(run / "metrics.jsonl")
    assert sum(row["examples"] for row in rows) == 4 * 8 * 2
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_killed_run_goes_on_bit_for_bit(folder, straight):
    run, step = folder / "killed", random.randrange(1, 13)
    job = spawn(run, devices=8)
    job.wait_for(run / "metrics.jsonl", (step + 1) // 2)
    assert job.commands[0].signal(signal.SIGKILL)
    job.end()
    assert start(config_of(run)) is Ending.ALL_STEPS
    assert records(run) == records(straight), f"killed after step {step}"
    one, other = (load_model(set_up(config_of(run)), "last").params for run in (run, straight))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_told_to_stop_saves_and_goes_on_with_fewer_devices(folder, straight, monkeypatch):
    run, advance = folder / "moved", Display.advance

    def stop_after_seven(self, step):
        advance(self, step)
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Display, "advance", stop_after_seven)
    assert start(config_of(run)) is Ending.STOPPED
    assert records(run) == [r for r in records(straight) if r["step"] <= 8]
    (end,) = spawn(run, devices=1).end()
    assert end.status == 0
    assert "resuming after step 8" in end.output
    for row, expected in zip(records(run), records(straight), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_a_finished_run_has_nothing_left_to_train(straight):
    before = records(straight)
    (straight / CARD).touch()
    assert start(config_of(straight)) is Ending.ALREADY
    assert records(straight) == before
    assert (straight / CARD).exists()


def test_a_report_is_none_as_soon_as_its_model_is_trained_further(folder, straight, monkeypatch):
    """Or a run killed after its last step would keep that of an earlier one."""
    run, take = folder / "reported", Display.advance
    shutil.copytree(straight, run, ignore=shutil.ignore_patterns("14", "14.whole"))
    (run / CARD).touch()

    def killed(self, step):
        take(self, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Display, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        start(config_of(run))
    assert not (run / CARD).exists()


def test_metrics_cut_by_hand_are_noticed(folder, straight):
    run = folder / "cut"
    shutil.copytree(straight, run, ignore=shutil.ignore_patterns("14"))
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="checkpoint knows"):
        start(config_of(run))


def test_the_newest_checkpoints_and_the_best_are_kept(straight):
    checkpoints = open_checkpoints(set_up(config_of(straight)), cleans=False)
    best = checkpoints.progress(14)["stopping"]["best_step"]
    checkpoints.close()
    assert checkpoints.steps() == sorted({best, 12, 14})


def test_reading_a_checkpoint_leaves_a_save_under_way_alone(folder, straight):
    run = folder / "saving"
    shutil.copytree(straight, run)
    saving = run / "checkpoints" / "16.orbax-checkpoint-tmp"
    (saving / "state").mkdir(parents=True)
    for number in range(2000):  # so many that they are not removed in passing
        (saving / "state" / str(number)).touch()
    assert load_model(set_up(config_of(run)), "last").step == 14
    assert saving.exists()
    assert start(config_of(run)) is Ending.ALREADY
    assert not saving.exists()


def test_too_little_memory_is_not_the_checkpoints_fault(straight, monkeypatch):
    """Or its remedy would be to remove a whole checkpoint."""
    opened = set_up(config_of(straight))
    checkpoints = open_checkpoints(opened, cleans=False)
    full = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))  # noqa: E731
    monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "restore", full)
    with pytest.raises(RuntimeError, match="Out of memory"):
        checkpoints.progress(14)
    checkpoints.close()


def test_a_damaged_checkpoint_says_what_to_do(folder, straight, capfd):
    run = folder / "damaged"
    shutil.copytree(straight, run)
    for file in (run / "checkpoints" / "14").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(
        InputError, match=r"14 is damaged: .* is not what was written; .*move that folder out of the run"
    ):
        load_model(set_up(config_of(run)), "last")
    assert capfd.readouterr().err == ""


def test_where_the_best_checkpoint_is_gone_the_last_is_used(folder, straight, monkeypatch, capfd):
    run = folder / "without_best"
    shutil.copytree(straight, run)
    opened = set_up(config_of(run))
    monkeypatch.setattr(runs, "read_progress", lambda checkpoints, step: Progress(Stopping("loss", None, best_step=13)))
    assert load_model(opened).step == 14
    assert "its best checkpoint, 13, is gone; the last" in capfd.readouterr().out


def test_a_mixture_of_experts_is_balanced_and_goes_on_from_where_it_stopped(folder):
    mixed = ("--model.experts", "3", "--train.expert_balance", "0.5")
    whole = folder / "balanced"
    assert start(config_of(whole, *mixed)) is Ending.ALL_STEPS
    found = [record["expert_imbalance"] for record in records(whole) if "loss" in record]
    assert all(1 <= value < 3 / 2 for value in found)  # two of three experts, at worst
    assert len({*found}) == len(found)
    # Between two records, whose sums the checkpoint keeps.
    parts = folder / "balanced_in_parts"
    shutil.copytree(whole, parts)
    for step in ("14", "12"):
        shutil.rmtree(parts / "checkpoints" / step)
        (parts / "checkpoints" / f"{step}.whole").unlink(missing_ok=True)
    (parts / CARD).unlink(missing_ok=True)
    assert start(config_of(parts, *mixed)) is Ending.ALL_STEPS
    assert records(parts) == records(whole)
