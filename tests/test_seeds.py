"""Data, training and evaluation are drawn by seeds of their own, which are the run's where none is given."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from fit_jax.config import Config, EvaluationConfig, TaskConfig, TokenizerConfig
from fit_jax.data.array_record import config_name
from fit_jax.data.tasks import build_task
from fit_jax.experiment.answers import questions_of
from fit_jax.methods import training_method
from fit_jax.models.config import ModelConfig
from fit_jax.runs.run import set_up, starting_state


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """What a run draws, by stream: its data; its first weights, order and instructions; its questions about an x."""

    def draw(seed: int, data: int | None, asked: int | None) -> dict[str, object]:
        config = Config(
            run_dir=str(tmp_path_factory.mktemp("run")),
            seed=seed,
            task=TaskConfig(seed=data, train_examples=40, validation_examples=8, test_examples=6),
            tokenizer=TokenizerConfig(vocab_size=300),
            model=ModelConfig(layers=1, width=16, feed_forward=24, heads=2, kv_heads=1),
            evaluation=EvaluationConfig(seed=asked, splits=("iid",), paraphrases=("heldout",)),
        )
        run = set_up(config, trust_code=True)
        sampler = training_method(run.task, config).sampler
        weights = np.asarray(jax.tree.leaves(starting_state(run, None).state.params)[0])
        branches = sampler.branches_of(0, sampler.order(0))
        return {
            "data": {name: list(split.examples) for name, split in run.task.splits.items()},
            "training": (
                weights.tobytes(),
                sampler.order(0).tolist(),
                [b.instruction for branch in branches for b in branch],
            ),
            "questions": list(questions_of(build_task(replace(config.task, seed=0), 0), config)),
        }

    return draw


def test_each_stream_varies_alone(drawn):
    base = drawn(0, 0, 0)
    assert drawn(0, None, None) == base  # a run without seeds of its own is what it was
    for stream, seeds in {"training": (1, 0, 0), "data": (0, 1, 0), "questions": (0, 0, 1)}.items():
        other = drawn(*seeds)
        assert {name for name in base if other[name] != base[name]} == {stream}


def test_the_runs_seed_draws_all_where_no_other_is_given(drawn):
    assert drawn(2, None, None) == drawn(2, 2, 2)


def test_records_are_found_by_the_seed_of_the_data():
    """Whoever names it; and those that were built before there was such a field are still found."""
    config = TaskConfig(rho_high=0.8)
    assert config_name(config, 3) == config_name(replace(config, seed=3), 0) == "seed3_b510d751"
    assert config_name(TaskConfig(seed=0), 7) == "default"


def test_a_task_by_its_own_seed_is_the_one_of_a_run_with_that_seed():
    small = TaskConfig(train_examples=8, validation_examples=4, test_examples=4)
    assert build_task(replace(small, seed=3), 0) == build_task(small, 3)
