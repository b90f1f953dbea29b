"""The shipped experiments: they parse, begin with their command, and stand on the configs of the single runs."""

from dataclasses import replace
from pathlib import Path

import pytest

from fit_jax.config import load_config
from fit_jax.config_files import config_differences, parse_config
from fit_jax.experiment.config import METHODS, ExperimentConfig, check_experiment
from fit_jax.methods import TRAINED

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


EXPERIMENTS = {"demo": "demo", "demo_biased": "demo", "ss": "ss_small", "ss_biased": "ss_small"}
BUDGET = ("examples_per_step", "batch_size", "sequence_length", "validate_every", "best")


def experiment(name: str) -> ExperimentConfig:
    config = parse_config(ExperimentConfig, ["--config", str(CONFIGS / "experiments" / f"{name}.yaml")])
    check_experiment(config)
    return config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_what_the_single_run_does_with_a_budget_for_all(name):
    config = experiment(name)
    first = (CONFIGS / "experiments" / f"{name}.yaml").read_text().splitlines()[0]
    assert f"python -m fit_jax.experiment --config configs/experiments/{name}.yaml" in first
    assert config.run_dir == f"runs/experiments/{name}"
    single = load_config(["--config", str(CONFIGS / f"{EXPERIMENTS[name]}.yaml")])
    train = replace(single.train, **{field: getattr(config.run.train, field) for field in BUDGET})
    task = replace(single.task, rho_train=0.9 if name.endswith("biased") else None)
    expected = replace(single, evaluation=config.run.evaluation, train=train, task=task)
    assert config_differences(expected, config.run) == []
    assert config.run.train.examples_per_step
    assert config.run.train.best == "worst_group"
    assert len(config.seeds) == (5 if name.startswith("demo") else 3)


def test_the_demo_experiments_compare_all_methods():
    for name in ("demo", "demo_biased"):
        assert set(experiment(name).methods) == set(METHODS)


def test_where_the_bias_is_all_methods_that_train_are_compared():
    assert set(experiment("ss_biased").methods) == set(TRAINED)
