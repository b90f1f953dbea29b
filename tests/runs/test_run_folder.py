"""Whose a run folder is."""

from dataclasses import replace

import pytest

from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.runs.run import read_progress
from fit_jax.runs.run_folder import CONFIG, TOKENIZER, claimed, saved_config
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


def test_a_config_that_was_cut_off_is_told(config, tmp_path):
    with claimed(config):
        (tmp_path / "run" / CONFIG).write_text("seed: 0\n")
    with pytest.raises(InputError, match="lacks run_dir, task"):
        saved_config(tmp_path / "run")


def test_two_processes_do_not_train_in_one_folder(config):
    with claimed(config), pytest.raises(InputError, match="another process"), claimed(config):
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

    with pytest.raises(InputError, match="4: its progress is damaged"):
        last_progress(Damaged(), config)
    with pytest.raises(InputError, match="4: its progress is damaged"):
        read_progress(Damaged(), 4)  # as evaluation and steering ask for the best step
