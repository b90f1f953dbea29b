"""Trackers get what `metrics.jsonl` gets, go on with a run that goes on, and never stop one."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from fit_jax.config import Config, TrainConfig, load_config
from fit_jax.errors import InputError
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.runs import trackers
from fit_jax.runs.job import train_and_report
from fit_jax.runs.trackers import Trackers, check_trackers
from fit_jax.training.display import Display
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics

TINY = {
    "task.train_examples": 60,
    "task.validation_examples": 8,
    "task.test_examples": 4,
    "tokenizer.vocab_size": 300,
    "model.layers": 1,
    "model.width": 16,
    "model.feed_forward": 24,
    "train.steps": 4,
    "train.batch_size": 8,
    "train.sequence_length": 320,
    "train.log_every": 1,
    "train.validate_every": 2,
    "train.checkpoint_every": 2,
    "evaluation.paraphrases_each": 1,
}
RECORD = {"step": 3, "loss": 0.5, "validation_loss": 0.25, "method_x": float("nan")}
HEADER, ROWS = ["focus instruction", "iid"], [["none", 0.75], ["focus(core)", None]]


class FakeRun:
    """A run of `wandb` that notes what it is told, and fails at what it is told to fail at."""

    def __init__(self, fails: str, **begun) -> None:
        self.begun, self.fails, self.told, self.ended = begun, fails, [], None

    def log(self, values: dict, step: int | None = None) -> None:
        if self.fails == "log":
            raise ConnectionError("no route\nto host")
        self.told.append((step, values))

    def finish(self, exit_code: int) -> None:
        if self.fails == "finish":
            raise ConnectionError("no route")
        self.ended = exit_code


@pytest.fixture
def fake(monkeypatch):
    """A module `wandb` whose runs are kept in its `runs`; its `fails` names what raises."""
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None, origin="nowhere")
    module.runs, module.fails = [], ""

    def init(**begun):
        print("chatter")
        if module.fails == "init":
            raise RuntimeError("not logged in")
        module.runs.append(FakeRun(module.fails, **begun))
        return module.runs[-1]

    module.init, module.Settings = init, SimpleNamespace
    module.Table = lambda columns, data: (columns, data)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_what_is_not_installed_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    monkeypatch.setattr(trackers, "is_installed", lambda name: name != "trackio")
    check_trackers(["wandb"])
    config = load_config(["--run_dir", str(tmp_path / "run"), "--train.trackers", "[wandb, trackio]"])
    with pytest.raises(InputError, match=r"train.trackers: trackio is not installed; `pip install '.\[trackio\]'`"):
        train_and_report(config)
    assert not (tmp_path / "run" / "task").exists()


def test_an_unknown_tracker_is_wrong_input():
    with pytest.raises(InputError, match=r"train.trackers.*sheets.*wandb"):
        load_config(["--train.trackers", "[sheets]"])


def test_a_run_goes_on_in_its_tracker(fake, tmp_path, capsys):
    for number in range(2):
        followed = Trackers(["wandb"], tmp_path, {"seed": 3})
        followed.open()
        followed.write(RECORD)
        followed.write_table(HEADER, ROWS)
        followed.close(failed=bool(number))
    first, second = fake.runs
    assert first.begun["id"] == second.begun["id"]
    assert (first.begun["name"], first.begun["resume"], first.begun["config"]) == (tmp_path.name, "allow", {"seed": 3})
    assert first.told == [(3, {"train/loss": 0.5, "validation/loss": 0.25}), (None, {"focus_accuracy": (HEADER, ROWS)})]
    assert (first.ended, second.ended) == (0, 1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_told_of_once(fake, fails, tmp_path, capsys):
    fake.fails = fails
    followed = Trackers(["wandb"], tmp_path, {})
    followed.open()
    for step in (1, 2):
        followed.write({**RECORD, "step": step})
    followed.write_table(HEADER, ROWS)
    followed.close(failed=False)
    why = {"init": "not logged in", "log": "no route", "finish": "no route"}[fails]
    assert capsys.readouterr().out == f"warning: wandb is left out from here on: {why}\n"


def test_a_damaged_list_of_names_is_wrong_input(fake, tmp_path):
    (tmp_path / "trackers.json").write_text("{")
    with pytest.raises(InputError, match=r"trackers.json.*move it away"):
        Trackers(["wandb"], tmp_path, {}).open()


@pytest.fixture
def run(tmp_path):
    """What trackers read of a run."""
    config = Config(run_dir=str(tmp_path), train=TrainConfig(trackers=("wandb",)))
    return SimpleNamespace(config=config, folder=tmp_path, model=DecoderConfig(vocab_size=300), lora=LoraConfig())


def test_a_run_that_fails_ends_as_failed_in_its_tracker(fake, run):
    def fails():
        with trackers.tracked(run) as followed:
            followed.open()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert fake.runs[0].ended == 1


def test_only_the_lead_process_writes(fake, monkeypatch, tmp_path, run):
    monkeypatch.setattr(trackers, "is_lead", lambda: False)
    with trackers.tracked(run) as followed:
        followed.open()
        followed.write(RECORD)
        followed.write_table(HEADER, ROWS)
    assert not fake.runs
    assert not (tmp_path / "trackers.json").exists()


def train(run, names, **fields) -> list[dict]:
    """Trains a tiny run; its records without times."""
    given = [part for name, value in {**TINY, **fields}.items() for part in (f"--{name}", str(value))]
    train_and_report(load_config([*given, "--run_dir", str(run), "--train.trackers", f"[{', '.join(names)}]"]))
    return read_metrics(run / "metrics.jsonl")


def stopped_and_resumed(run, names, monkeypatch) -> list[dict]:
    """A run that was killed after its first checkpoint and goes on; its records."""
    advance = Display.advance

    def killed(self, step):
        advance(self, step)
        if step == 3:
            raise MemoryError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Display, "advance", killed)
        with pytest.raises(MemoryError):
            train(run, names)
    return train(run, names)


def expected(records, field) -> dict[int, float]:
    return {record["step"]: record[field] for record in records if field in record}


@pytest.mark.slow
def test_a_tracked_run_is_followed_from_start_to_table(fake, tmp_path, monkeypatch):
    records = stopped_and_resumed(tmp_path / "run", ["wandb"], monkeypatch)
    first, second = fake.runs
    assert first.begun["id"] == second.begun["id"]
    assert (first.ended, second.ended) == (1, 0)
    assert [step for step, _ in second.told] == [3, 4, None]
    untimed = [name for name in records[0] if name not in (*TIMING_FIELDS, "step")]
    for (step, values), record in zip(first.told + second.told[:-1], [*records[:2], *records[2:]], strict=True):
        assert step == record["step"]
        assert {name: values[f"train/{name}"] for name in untimed} == {name: record[name] for name in untimed}
    header, rows = second.told[-1][1]["focus_accuracy"]
    assert header[1:] == ["iid", "high", "low", "flipped (as low)"]
    assert all(0 <= cell <= 1 for row in rows for cell in row[1:])
    assert second.begun["config"]["model.vocab_size"] > 0  # resolved


@pytest.mark.slow
def test_wandb_offline_holds_the_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    records = stopped_and_resumed(tmp_path / "run", ["wandb"], monkeypatch)
    wandb.teardown()  # its own process writes the files
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    content = [file.read_bytes() for file in files]
    assert len(files) == 2  # `wandb sync` makes one run of them
    for record in records:
        held = content[record["step"] > 2]
        assert json.dumps(record["loss"]).encode() in held
        if "validation_loss" in record:
            assert json.dumps(record["validation_loss"]).encode() in held
    assert b"model.vocab_size" in content[1]
    tables = list((tmp_path / "wandb").glob("offline-run-*/files/media/table/focus_accuracy_*.table.json"))
    assert [json.loads(table.read_text())["columns"][0] for table in tables] == ["focus instruction"]


@pytest.mark.slow
def test_mlflow_in_a_database_holds_the_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    pytest.importorskip("sqlalchemy", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    records = stopped_and_resumed(tmp_path / "run", ["mlflow"], monkeypatch)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("fit_jax").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.run_id == json.loads((tmp_path / "run" / "trackers.json").read_text())["mlflow"]
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["train.steps"] == "4"
    for field, name in (("loss", "train/loss"), ("validation_loss", "validation/loss"), ("tokens", "train/tokens")):
        assert {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)} == expected(records, field)
    table = json.loads((tmp_path / client.download_artifacts(run.info.run_id, "focus_accuracy.json")).read_text())
    assert len(table["data"]) == 6


@pytest.mark.slow
def test_trackio_on_this_machine_holds_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage", reason="needs the extra trackio").SQLiteStorage
    records = stopped_and_resumed(tmp_path / "run", ["trackio"], monkeypatch)
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["trackio"]
    assert storage.get_runs("fit_jax") == [name]
    rows = storage.get_logs("fit_jax", name)
    for field, logged in (("loss", "train/loss"), ("validation_loss", "validation/loss")):
        assert {row["step"]: row[logged] for row in rows if logged in row} == expected(records, field)
    assert any("focus_accuracy" in row for row in rows)
