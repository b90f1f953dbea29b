"""What a small run of each method learns where the bias exists: methods against bias know rare groups better."""

from dataclasses import replace

import numpy as np
import pytest

from fit_jax.runs.run_folder import FIRST_STAGE
from fit_jax.runs.trainer import Ending, train

from .biased_task import make_run, worst_group


@pytest.fixture(scope="module")
def worst(tmp_path_factory):
    """The accuracy of a method's worst group after training, each method trained once."""
    found: dict[str, float] = {}

    def of(method: str) -> float:
        if method not in found:
            run = make_run(tmp_path_factory.mktemp(method), method)
            assert train(run) is Ending.ALL_STEPS
            found[method] = worst_group(run)
        return found[method]

    return of


def test_cross_entropy_leans_on_the_shortcut(worst):
    assert worst("sft_y") < 0.5


@pytest.mark.parametrize("method", ["poe", "group_dro", "group_balanced", "jtt"])
def test_a_method_against_bias_knows_the_worst_group_better(worst, method):
    assert worst(method) > worst("sft_y") + 0.15


def test_the_last_layer_trained_on_balanced_groups_knows_the_worst_one_better(tmp_path):
    """DFR's second stage against its own first; the task is small, so that one seed may gain nothing."""
    before, after = [], []
    for seed in range(3):
        run = make_run(tmp_path / str(seed), "dfr", steps=300, dfr_steps=0.3, dfr_held_out=0.4)
        run = replace(run, config=replace(run.config, seed=seed))
        assert train(run) is Ending.ALL_STEPS
        before.append(worst_group(replace(run, folder=run.folder / FIRST_STAGE)))
        after.append(worst_group(run))
    assert np.mean(after) > np.mean(before) + 0.12
