"""Whose a run folder is."""

from dataclasses import replace

import pytest

from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.training.run_folder import CONFIG, TOKENIZER, claimed, saved_config


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(run_dir=str(tmp_path / "run"))


def test_a_run_that_never_trained_gives_way_to_a_corrected_config(config, tmp_path):
    with claimed(config):
        (tmp_path / "run" / TOKENIZER).mkdir()
        (tmp_path / "run" / "checkpoints").mkdir()
    with claimed(replace(config, seed=1)):
        assert saved_config(tmp_path / "run").seed == 1
        assert not (tmp_path / "run" / TOKENIZER).exists()


@pytest.mark.parametrize("trained", ["metrics.jsonl", "checkpoints/3"])
def test_a_run_that_trained_does_not(config, trained, tmp_path):
    with claimed(config):
        (tmp_path / "run" / trained).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / trained).touch()
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
