"""Options of the doors, and how a door ends."""

import errno
import sys
from contextlib import suppress

import pytest

from fit_jax import evaluate, steer, train
from fit_jax.config import Config, MeshConfig
from fit_jax.config_files import dump_config
from fit_jax.data import __main__ as data
from fit_jax.doors import checkpoint_option, new_file, split_folder, take_flag, take_option, take_options
from fit_jax.errors import InputError, run_command
from fit_jax.experiment import __main__ as experiment
from fit_jax.parallel import processes


def test_options_are_taken_from_the_command_line():
    assert split_folder(["runs/x", "--text", "a"], "usage", "") == ("runs/x", ["--text", "a"])
    assert take_option(["--text", "a", "--b", "c"], "text") == ("a", ["--b", "c"])
    assert take_option(["--text=a=b"], "text") == ("a=b", [])
    assert take_option([], "text") == (None, [])
    assert take_options(["--slot", "a=1", "--slot=b=2"], "slot") == (["a=1", "b=2"], [])
    for arguments in (["--text"], ["--text", "a", "--text", "b"]):
        with pytest.raises(InputError):
            take_option(arguments, "text")
    assert take_flag(["--json", "--b"], "json") == (True, ["--b"])
    assert take_flag(["--b"], "json") == (False, ["--b"])
    with pytest.raises(InputError, match="usage"):
        split_folder(["--text", "a"], "usage", "")


def test_checkpoints_are_named_or_numbered():
    assert [checkpoint_option(text) for text in (None, "best", "last", "30")] == ["best", "best", "last", 30]
    for text in ("newest", "-1", "²"):
        with pytest.raises(InputError, match="best, last or"):
            checkpoint_option(text)


def test_a_file_to_write_must_be_new_and_have_a_folder(tmp_path):
    assert new_file(None, "--html") is None
    assert new_file(str(tmp_path / "a.html"), "--html") == tmp_path / "a.html"
    for name, message in ((".", "nothing is overwritten"), ("none/a.html", "is no folder")):
        with pytest.raises(InputError, match=message):
            new_file(str(tmp_path / name), "--html")


def test_wrong_input_is_one_line_and_status_two(monkeypatch, capsys):
    def door(arguments):
        raise InputError("row 3: bad\n  near here")

    monkeypatch.setattr(sys, "argv", ["door"])
    with pytest.raises(SystemExit, match="2"):
        run_command(door)
    assert capsys.readouterr().err == "error: row 3: bad near here\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 8 GiB"), "error: Unable to allocate 8 GiB; take fewer"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating"), "Out of memory allocating; take fewer"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free space"),
    ],
)
def test_a_machine_that_does_not_suffice_is_told_in_one_line(error, said, monkeypatch, capsys):
    def door(arguments):
        raise error

    monkeypatch.setattr(sys, "argv", ["door"])
    with pytest.raises(SystemExit, match="2"):
        run_command(door)
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("door", [train, evaluate, steer, data, experiment])
def test_help_says_what_the_door_does_and_where_fields_are_listed(door, capsys):
    with suppress(SystemExit):
        door.main(["--help"])
    shown = capsys.readouterr().out
    assert door.__doc__.rstrip() in shown
    listed = {train: "--mesh.fsdp ", experiment: "--run.mesh.fsdp "}.get(door, "fit_jax.train --help` lists")
    assert listed in " ".join(shown.split())


@pytest.mark.parametrize(
    ("option", "said"), [("--run.run_dir", "--run_dir"), ("--run.seed", "--seeds"), ("--run.train.method", "--methods")]
)
def test_an_experiment_refuses_what_its_cells_set(option, said):
    for arguments in ([option, "3"], [f"{option}=3"]):
        with pytest.raises(InputError, match=f"{option}: is set by each cell .* {said}"):
            experiment.main(arguments)


def test_every_door_that_takes_a_mesh_starts_with_it(tmp_path, monkeypatch):
    """What the command line asks, or else the run's own config."""

    def start(config):
        raise InputError(f"{config.processes} processes, timeout {config.timeout}")

    monkeypatch.setattr(processes, "start", start)
    (tmp_path / "config.yaml").write_text(dump_config(Config(mesh=MeshConfig(processes=3, timeout=7))))
    asked = ["--mesh.processes", "2", "--mesh.timeout", "5"]
    for door, arguments in (
        (train.main, asked),
        (evaluate.main, [str(tmp_path), *asked]),
        (steer.main, [str(tmp_path), "--text", "a", *asked]),
        (experiment.main, [argument.replace("--", "--run.") for argument in asked]),
    ):
        with pytest.raises(InputError, match="2 processes, timeout 5"):
            door(arguments)
    for door in (evaluate.main, steer.main):
        with pytest.raises(InputError, match="3 processes, timeout 7"):
            door([str(tmp_path)])
