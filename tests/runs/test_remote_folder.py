"""Run folders behind a URL, against a store with the semantics of a bucket: the lock, and commands that work there."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fit_jax import steer, train
from fit_jax.errors import InputError
from fit_jax.runs.remote_folder import working_folder
from fit_jax.runs.remote_mirror import Mirror
from fit_jax.runs.remote_store import LOCK, RemoteLock, RemoteStore
from fit_jax.runs.run_folder import InUse, held
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from tests.faults.runs import TINY

from .shelf import FAIL, KILL, URL, content, objects, put


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("checkpoints%2F2%2Fa", b"x", "2/a: not|is not what was written"),
        ("checkpoints%2F2%2Fa", None, "is damaged"),
        ("checkpoints%2F2.whole", b"[1", "is damaged"),
        ("checkpoints%2F2.whole", b"[1]", "is damaged"),
        ("checkpoints%2F2.whole", b'{"../../x": [1, ""]}', "leads out of it"),
        ("checkpoints%2F2.whole", b'{"a": 7}', "is damaged"),
        (".remote-run", None, "holds files, but none that a run has written"),
    ],
)
def test_damage_is_told(tmp_path, shelf, name, text, said):
    folder = tmp_path / "run"
    store = RemoteStore(URL)
    store.write(".remote-run", b"1\n")
    put(folder, 1, checkpoints__2__a="2")
    Mirror(store, folder).send(last=True)
    file = shelf / f"bucket%2Fruns%2Fa%2F{name}"
    before = objects(shelf)
    file.unlink() if text is None else file.write_bytes(text)
    with pytest.raises(InputError, match=said) as error, working_folder(URL):
        pass
    assert "\n" not in str(error.value)
    assert objects(shelf).keys() >= before.keys() - {name.replace("%2F", "/")}  # nothing healthy is deleted


def test_one_process_at_a_time(shelf):
    store = RemoteStore(URL)
    lock = RemoteLock(store, beat=0.05)
    script = f"import os; from fit_jax.runs.remote_store import *; RemoteLock(RemoteStore({URL!r}), 0.1)"
    done = subprocess.run([sys.executable, "-c", script], env=child(shelf), capture_output=True, text=True)
    assert re.search(f"another process is at work there \\(.?process {os.getpid()} on", done.stderr), done.stderr
    lock.check()
    lock.release()
    assert not list(shelf.iterdir())
    # A process of this machine that has ended without letting go holds nothing.
    done = subprocess.run([sys.executable, "-c", f"{script}; os._exit(0)"], env=child(shelf), check=False)
    assert done.returncode == 0
    assert store.names() == {LOCK}
    RemoteLock(store, dead=1e6).release()


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    "left", [b'{"owner": "x", "process": 1, "host": "h", "place": "elsewhere"}', b"", b"[1]", b"{"]
)
def test_a_holder_that_shows_no_life_loses_the_lock(left):
    store = RemoteStore(URL)
    store.write(LOCK, left)
    lock = RemoteLock(store, beat=0.02, dead=0.1)
    lock.check()
    store.write(LOCK, b'{"owner": "other"}')
    with pytest.raises(InputError, match="another process has taken it over"):
        check_until(lock, time.monotonic() + 20)
    lock.release()
    assert store.read(LOCK) == b'{"owner": "other"}'


def check_until(lock: RemoteLock, end: float) -> None:
    while time.monotonic() < end:
        lock.check()


def work(error: Exception | None = None) -> None:
    """A command that leaves a checkpoint and ends well or by an error."""
    with working_folder(URL) as folder:
        put(folder, 1, checkpoints__2__a="2")
        if error is not None:
            raise error


def test_what_was_done_before_an_error_is_kept(shelf):
    with pytest.raises(ZeroDivisionError):
        work(ZeroDivisionError())
    assert objects(shelf).keys() == {"checkpoints/2/a", "checkpoints/2.whole"}
    with working_folder(URL, writes=False) as folder:
        assert content(folder).keys() == {"checkpoints/2/a", "checkpoints/2.whole"}


def test_nothing_is_sent_to_a_place_that_another_has_taken(shelf, monkeypatch):
    def lost(self):
        raise InputError("another process has taken it over")

    monkeypatch.setattr(RemoteLock, "check", lost)
    with pytest.raises(InputError, match=r"taken it over.*what is not there yet is in "):
        work()
    assert not objects(shelf)


@pytest.fixture
def left(shelf, tmp_path, monkeypatch) -> Path:
    """The working copy of a command that could not send its checkpoint of step 2."""
    monkeypatch.setenv(FAIL, "2.whole")
    with pytest.raises(InputError, match=r"token has expired.*the next start on this machine takes up") as error:
        work()
    assert "\n" not in str(error.value)
    (folder,) = (tmp_path / "cache" / "fit_jax" / "remote").glob("*/run")
    assert str(folder) in str(error.value)
    assert (folder / "checkpoints" / "2" / "a").read_text() == "2"
    monkeypatch.delenv(FAIL)
    return folder


def test_what_a_process_could_not_send_is_sent_by_the_next(left, shelf):
    with working_folder(URL) as folder:
        assert content(folder) == {"checkpoints/2/a": b"2"}
        put(folder, 2, checkpoints__4__a="4")
    assert {"checkpoints/2.whole", "checkpoints/4.whole"} <= objects(shelf).keys()
    assert not left.exists()


def test_checkpoints_that_are_nowhere_else_are_kept_when_others_have_gone_on(
    left, shelf, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        with working_folder(URL) as folder:
            put(folder, 2, checkpoints__1__a="1")
    with working_folder(URL) as folder:
        assert content(folder).keys() == {"checkpoints/1/a", "checkpoints/1.whole"}
    told = capsys.readouterr().out
    (aside,) = (tmp_path / "cache" / "fit_jax" / "remote").glob("*/run/checkpoints/2/a")
    assert str(aside.parents[2]) in told


def test_a_working_copy_that_is_behind_the_store_is_removed(left, shelf, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        with working_folder(URL) as folder:
            put(folder, 2, checkpoints__10__a="10")
    with working_folder(URL) as folder:
        assert "checkpoints/2/a" not in content(folder)
    assert "warning" not in capsys.readouterr().out
    assert not list((tmp_path / "cache" / "fit_jax" / "remote").iterdir())


def test_a_process_that_was_taken_for_dead_keeps_its_working_copy(left, shelf):
    with held(left), pytest.raises(InUse, match="another process is at work in this folder"), working_folder(URL):
        pass
    assert content(left).keys() == {".lock", "checkpoints/2/a"}


def child(shelf: Path, **more: str) -> dict[str, str]:
    """The environment of a process that knows the store."""
    info = shelf.parent / "path" / "shelf-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fsspec.specs]\nshelf = tests.runs.shelf:Shelf\n")
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(info.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


def fit_jax(shelf: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from fit_jax.cli import main; main()", *arguments]
    return subprocess.run(command, env=child(shelf, **more), capture_output=True, text=True, cwd=shelf.parent)


def test_commands_work_behind_a_url(tmp_path, shelf, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    train_it = ["--config", str(config), "--train.steps", "2", "--run_dir", URL]
    assert not train.main(train_it)
    there = objects(shelf)
    assert {"config.yaml", "metrics.jsonl", "checkpoints/2.whole", "report/index.html", "MODEL_CARD.md"} <= there.keys()
    assert all(f"run_dir: {URL}\n" in there[name].decode() for name in ("config.yaml", "MODEL_CARD.md"))
    placed = {name for name, text in there.items() if str(tmp_path / "cache").encode() in text}
    assert placed <= {name for name in there if name.endswith(("log.txt", "commit_success.txt"))}
    assert not train.main(train_it)
    assert "nothing is left to train" in capsys.readouterr().out
    assert not steer.main([URL, "--text", "a film", "--focus", "core"])
    changed = {name for name, text in objects(shelf).items() if there.get(name) != text}
    assert changed == {"log.txt"}
    assert not list((tmp_path / "cache" / "fit_jax" / "remote").iterdir())
    assert LOCK not in RemoteStore(URL).names()
    with pytest.raises(InputError, match="holds results of another config"):
        train.main([*train_it, "--seed", "4"])


@pytest.mark.slow
def test_a_run_behind_a_url_is_killed_and_goes_on(tmp_path, shelf):
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    here = fit_jax(shelf, "train", "--config", str(config), "--run_dir", "here")
    assert here.returncode == 0, here.stderr
    train = ("train", "--config", str(config), "--run_dir", URL)
    killed = fit_jax(shelf, *train, **{KILL: r"checkpoints/8\.whole$"})
    assert killed.returncode == -9
    assert any(name.startswith("checkpoints/8/") for name in objects(shelf))
    assert "checkpoints/8.whole" not in objects(shelf)
    lost = tmp_path / "cache" / "fit_jax" / "remote"  # with it, the copy that holds all that was not sent
    shutil.rmtree(lost)
    again = fit_jax(shelf, *train)
    assert again.returncode == 0, again.stderr
    assert "resuming after step 6" in again.stdout + again.stderr
    evaluated = fit_jax(shelf, "evaluate", URL, "--evaluation.splits", "[low]", "--name", "low")
    assert evaluated.returncode == 0, evaluated.stderr
    answered = fit_jax(shelf, "steer", URL, "--text", "a film")
    assert answered.returncode == 0, answered.stderr
    exported = fit_jax(shelf, "convert", "export-merged", "--from", URL, "--to", str(tmp_path / "hf"))
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "hf" / "config.json").exists()

    copy = tmp_path / "copy"
    copy.mkdir()
    Mirror(RemoteStore(URL), copy).fetch()
    assert (copy / "evaluations" / "low" / "index.html").exists()
    for name in ("report/predictions.jsonl", "report/focus_accuracy.jsonl", "inputs.json"):
        assert (copy / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    one, other = (
        [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in read_metrics(folder / "metrics.jsonl")]
        for folder in (copy, tmp_path / "here")
    )
    assert one == other
    assert {p.name for p in (copy / "checkpoints").iterdir()} == {
        p.name for p in (tmp_path / "here" / "checkpoints").iterdir()
    }
    assert not list(lost.iterdir())
