"""What a small run of each method learns where the bias exists: methods against bias know rare groups better."""

import pytest

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
