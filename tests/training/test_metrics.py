import math
import os

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.training.metrics import MetricsLog, Totals, read_metrics, scalars
from fit_jax.training.objective import LossSums
from fit_jax.training.step import StepMetrics


def metrics(loss, targets, correct, tokens, target_tokens, examples) -> StepMetrics:
    sums = LossSums(*(np.float32(value) for value in (loss, targets, correct)))
    counts = (np.int32(value) for value in (tokens, target_tokens, examples))
    return StepMetrics(sums, *counts, np.float32(0.5), np.float32(1e-3))


def record(step: int) -> dict:
    totals = Totals()
    totals.add(metrics(0.1 * step, 2, 1, tokens=30, target_tokens=2, examples=1))
    return totals.record(step, 1e-3, 0.5, 2.0)


def test_records_are_means_per_target_and_sums():
    totals = Totals()
    totals.add(metrics(6.0, 2, 2, tokens=30, target_tokens=5, examples=1))
    totals.add(metrics(2.0, 6, 0, tokens=50, target_tokens=7, examples=3))
    row = totals.record(20, 1e-3, 0.5, 2.0)
    assert (row["step"], row["loss"], row["target_accuracy"]) == (20, 1.0, 0.25)
    assert (row["tokens"], row["target_tokens"], row["examples"]) == (80, 12, 4)
    assert (row["tokens_per_second"], row["examples_per_second"]) == (40.0, 2.0)
    assert Totals(**totals.to_json()) == totals


def test_a_log_goes_on_where_its_checkpoint_was(tmp_path):
    log = MetricsLog(tmp_path, 0, 0)
    log.write(record(1))
    size, _ = log.sync()
    log.write(record(2))
    log.write(record(3))
    log.close()
    log = MetricsLog(tmp_path, size, 1)
    log.write(record(2))
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [record(1), record(2)]


def test_records_that_were_changed_are_told(tmp_path):
    log = MetricsLog(tmp_path, 0, 0)
    log.write(record(1))
    log.close()
    log = MetricsLog(tmp_path, (tmp_path / "metrics.jsonl").stat().st_size, 1)
    log.write(record(2))
    size, digest = log.sync()
    log.write(record(3))
    log.close()
    MetricsLog(tmp_path, size, 2, digest).close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 2', '"step": 5'))
    with pytest.raises(InputError, match=r"metrics.jsonl is not what its checkpoint knows; put it back"):
        MetricsLog(tmp_path, size, 2, digest)


def test_a_checkpoint_waits_until_the_disk_holds_its_records(tmp_path, monkeypatch):
    synced, sync, path = [], os.fsync, tmp_path / "metrics.jsonl"

    def noted(handle):
        if os.path.samestat(os.fstat(handle), path.stat()):  # TensorBoard's file may be synced too
            synced.append(os.fstat(handle).st_size)
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    log = MetricsLog(tmp_path, 0, 0)
    log.write(record(1))
    size, _ = log.sync()
    log.close()
    assert synced == [size]


def test_a_line_half_written_is_cut_off(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"st')
    MetricsLog(tmp_path, 12, 1).close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_a_log_shorter_than_its_checkpoint_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="holds 0 bytes, its checkpoint knows of 9"):
        MetricsLog(tmp_path, 9, 1)


def test_a_value_that_is_no_number_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "loss": "low"}\n')
    with pytest.raises(InputError, match=r"line 2: loss is .*low.*, no number"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_boards_get_finite_numbers_alone():
    assert scalars({"step": 3, "loss": math.inf, "validation_loss": math.nan, "tokens": 4}) == {"train/tokens": 4}


def board(folder) -> list:
    """The events of the one TensorBoard file of a run."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (folder / "tensorboard").iterdir()
    content, events, at = path.read_bytes(), [], 0
    while at < len(content):  # a record: length (8), checksum (4), event, checksum (4)
        length = int.from_bytes(content[at : at + 8], "little")
        events.append(Event.FromString(content[at + 12 : at + 12 + length]))
        at += 12 + length + 4
    return events


def test_tensorboard_forgets_what_is_done_again_and_nothing_before(tmp_path):
    log = MetricsLog(tmp_path, 0, 4)
    log.write(record(5))
    log.close()
    starts = [event.step for event in board(tmp_path) if event.HasField("session_log")]
    assert starts == [5]  # events of steps from here on are hidden


def test_tensorboard_holds_the_same_numbers(tmp_path):
    log = MetricsLog(tmp_path, 0, 0)
    log.write(record(4) | {"validation_loss": 0.25})
    log.close()
    values = {v.tag: (event.step, v.simple_value) for event in board(tmp_path) for v in event.summary.value}
    assert values["train/loss"] == (4, pytest.approx(0.2))
    assert values["validation/loss"] == (4, 0.25)
