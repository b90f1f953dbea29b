"""Whose a run folder is."""

import errno
import os
from dataclasses import replace

import pytest
import yaml

from fit_jax import evaluate, train
from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.experiment import __main__ as experiment
from fit_jax.foreign import read_object
from fit_jax.runs.run import read_progress
from fit_jax.runs.run_folder import CONFIG, FIRST_STAGE, TOKENIZER, TRACKERS, claimed, held, locked, saved_config
from fit_jax.runs.trainer import last_progress
from fit_jax.training.checkpoint import Checkpoints


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(run_dir=str(tmp_path / "run"))


def test_a_run_without_a_checkpoint_gives_way_to_a_corrected_config(config, tmp_path):
    with claimed(config):
        (tmp_path / "run" / "metrics.jsonl").touch()
        (tmp_path / "run" / TOKENIZER).mkdir()
        (tmp_path / "run" / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)  # cut off
    with claimed(replace(config, seed=1)):
        assert saved_config(tmp_path / "run").seed == 1
        assert not (tmp_path / "run" / TOKENIZER).exists()


def test_a_run_with_a_checkpoint_does_not(config, tmp_path):
    with claimed(config):
        (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match="seed: 0 -> 1"), claimed(replace(config, seed=1)):
        pass
    assert saved_config(tmp_path / "run") == config


def test_a_run_with_a_checkpoint_of_its_first_stage_alone_does_not(config, tmp_path):
    with claimed(config):
        (tmp_path / "run" / FIRST_STAGE / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(InputError, match="seed: 0 -> 1"), claimed(replace(config, seed=1)):
        pass


@pytest.mark.parametrize("name", ["checkpoints/3", "metrics.jsonl"])
def test_results_of_no_known_run_are_left_alone(config, tmp_path, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.touch()
    with (
        pytest.raises(InputError, match=f"holds {name.partition('/')[0]} but no config.yaml; put it back"),
        claimed(config),
    ):
        pass
    assert path.exists()


def test_another_run_is_another_one_for_its_trackers(config, tmp_path):
    known = tmp_path / "run" / TRACKERS
    with claimed(config):
        known.write_text('{"wandb": "abc"}')
    with claimed(config):
        assert known.exists()
    with claimed(replace(config, seed=1)):
        assert not known.exists()


def test_a_config_that_was_cut_off_is_told(config, tmp_path):
    with claimed(config):
        (tmp_path / "run" / CONFIG).write_text("seed: 0\n")
    with pytest.raises(InputError, match="lacks run_dir, task"):
        saved_config(tmp_path / "run")


def test_a_config_of_a_version_without_rehearsal_is_read(config, tmp_path):
    path = tmp_path / "run" / CONFIG
    with claimed(config):
        values = yaml.safe_load(path.read_text())
        del values["rehearsal"]
        path.write_text(yaml.safe_dump(values))
        kept = saved_config(tmp_path / "run")
    assert kept == config
    with claimed(config):  # and goes on
        pass


def test_a_run_of_a_version_with_one_seed_goes_on(config, tmp_path):
    """And may be asked in other paraphrases, but does not go on with other data."""
    path = tmp_path / "run" / CONFIG
    with claimed(config):
        values = yaml.safe_load(path.read_text())
        del values["task"]["seed"], values["evaluation"]["seed"]
        path.write_text(yaml.safe_dump(values))
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    claim(config)
    claim(replace(config, evaluation=replace(config.evaluation, seed=4)))
    with pytest.raises(InputError, match=r"task\.seed: None -> 4"):
        claim(replace(config, task=replace(config.task, seed=4)))


def test_two_processes_do_not_train_in_one_folder(config):
    with claimed(config), pytest.raises(InputError, match="another process"), claimed(config):
        pass


def test_every_command_that_writes_keeps_the_others_out(config, tmp_path):
    with claimed(config):
        for command in (
            lambda: train.main(["--run_dir", config.run_dir]),
            lambda: evaluate.main([config.run_dir]),
            lambda: experiment.main(["--run_dir", config.run_dir, "--seeds", "[0]"]),
        ):
            with pytest.raises(InputError, match=rf"run: another process .*wait for it \(process {os.getpid()} on "):
                command()


@pytest.mark.parametrize("name", [".lock", "log.txt", "metrics.jsonl", "config.yaml", "report/index.html"])
def test_a_folder_where_a_file_should_be_is_told(config, tmp_path, name):
    (tmp_path / "run" / name).mkdir(parents=True)
    with pytest.raises(InputError, match=f"run/{name}: is no file; move it away"), claimed(config):
        pass


@pytest.mark.parametrize("name", [".lock", "log.txt", "metrics.jsonl"])
def test_a_link_in_the_place_of_a_file_is_not_followed(config, tmp_path, name):
    other = tmp_path / "other.txt"
    other.write_text("healthy")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(other)
    with pytest.raises(InputError, match="is a symbolic link; move it away"), claimed(config):
        pass
    assert other.read_text() == "healthy"


def test_what_a_killed_command_left_half_written_is_removed(config, tmp_path):
    for place in ("run", "run/report", "run/task", "run/first_stage", "run/source"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / ".partial-1234.svg").touch()
    with claimed(config):
        assert not list((tmp_path / "run").rglob(".partial*"))


def test_lines_about_a_folder_stay_short_where_its_name_is_long(config, tmp_path):
    folder = tmp_path.joinpath(*["a folder of a name that is long"] * 10)
    config = replace(config, run_dir=str(folder))
    folder.mkdir(parents=True)

    def line(act) -> str:
        with pytest.raises(InputError) as error:
            act()
        return str(error.value)

    lines = [line(lambda: evaluate.main([str(folder)]))]
    with held(folder):
        lines.append(line(lambda: claim(config)))
    (folder / "metrics.jsonl").touch()
    lines.append(line(lambda: claim(config)))
    (folder / CONFIG).write_text("seed: 0\n")
    lines += [line(lambda: claim(config)), line(lambda: Checkpoints(folder, 1, True, True).progress(4))]
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    lines += [line(lambda: claim(config)), line(lambda: read_object(folder / CONFIG))]
    for said in lines:
        assert len(said.rpartition(";")[0]) <= 200, said
        assert "long/" in said


def claim(config: Config) -> None:
    with claimed(config):
        pass


def test_damaged_checkpoints_are_told(config, tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(InputError, match="is no folder; move it away"):
        Checkpoints(tmp_path, 1, True, False)
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "checkpoints").symlink_to("checkpoints")
    with pytest.raises(InputError, match="symbolic links; move it away"):
        Checkpoints(tmp_path, 1, True, False)

    class Damaged:
        folder = tmp_path
        steps = staticmethod(lambda: [4])
        progress = staticmethod(lambda step: {"stopping": {}})
        remedy = staticmethod(lambda step: "put it back")

    with pytest.raises(InputError, match="4: its progress is damaged"):
        last_progress(Damaged(), config)
    with pytest.raises(InputError, match="4: its progress is damaged"):
        read_progress(Damaged(), 4)  # as evaluation and steering ask for the best step


def test_a_full_disk_is_reported_with_the_folder_that_a_command_works_in(tmp_path):
    with (
        pytest.raises(InputError, match=r"^cannot write in .*/run: No space left.*; free space"),
        locked(tmp_path / "run"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
