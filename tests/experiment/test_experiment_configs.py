"""The shipped experiments: they parse, begin with their command, and stand on the configs of the single runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from fit_jax.config import load_config
from fit_jax.config_files import config_differences, parse_config
from fit_jax.experiment.config import METHODS, ExperimentConfig, check_experiment

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize(("name", "run"), [("demo", "demo"), ("ss", "ss_small")])
def test_an_experiment_runs_what_the_single_run_does(name, run):
    path = CONFIGS / "experiments" / f"{name}.yaml"
    config = parse_config(ExperimentConfig, ["--config", str(path)])
    check_experiment(config)
    assert f"python -m fit_jax.experiment --config configs/experiments/{name}.yaml" in path.read_text().splitlines()[0]
    single = load_config(["--config", str(CONFIGS / f"{run}.yaml")])
    assert config_differences(replace(single, evaluation=config.run.evaluation), config.run) == []
    assert config.seeds == (0, 1, 2)


def test_the_demo_experiment_compares_all_methods():
    config = parse_config(ExperimentConfig, ["--config", str(CONFIGS / "experiments" / "demo.yaml")])
    assert set(config.methods) == set(METHODS)
