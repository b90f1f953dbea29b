"""An experiment of one method of each sort on a tiny run: cells are done once, what is wrong is said plainly."""

import json
from dataclasses import replace

import pytest

from fit_jax.config import Config, EvaluationConfig, MeshConfig, TaskConfig, TokenizerConfig, TrainConfig
from fit_jax.config_files import parse_config
from fit_jax.errors import InputError
from fit_jax.experiment.config import ExperimentConfig, check_experiment
from fit_jax.experiment.runner import Cell, run_experiment
from fit_jax.models.config import ModelConfig

METHODS = ("few_shot", "fit", "group_dro", "activation_addition")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ExperimentConfig:
    run = Config(
        task=TaskConfig(train_examples=40, validation_examples=8, test_examples=6),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(layers=2, width=16, feed_forward=24, heads=2, kv_heads=1),
        mesh=MeshConfig(data=8),
        train=TrainConfig(steps=2, batch_size=8, sequence_length=320, validate_every=None, checkpoint_every=2),
        evaluation=EvaluationConfig(
            splits=("iid", "flipped"), paraphrases=("heldout",), paraphrases_each=1, batch_size=8
        ),
    )
    return ExperimentConfig(run_dir=str(tmp_path_factory.mktemp("experiment")), methods=METHODS, seeds=(0,), run=run)


@pytest.fixture(scope="module")
def report(config):
    return run_experiment(config)


def test_every_method_is_in_the_report(report, config):
    rows = [json.loads(line) for line in (report / "focus_accuracy.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows} == set(METHODS)
    assert len(rows) == len(METHODS) * 2 * 6
    summary = (report / "summary.md").read_text()
    assert "on SFT(y)" in summary
    assert "of random weights" in summary
    assert (report / "index.html").exists()


def test_finished_cells_are_not_done_again(report, config):
    before = (report / "summary.md").read_bytes()
    assert run_experiment(config, lambda *_: pytest.fail("a finished cell was done again")) == report
    assert (report / "summary.md").read_bytes() == before


def test_more_seeds_are_welcome_and_only_their_cells_are_done(report, config):
    done = []
    with pytest.raises(pytest.skip.Exception):
        run_experiment(
            replace(config, seeds=(0, 1)), lambda config, cell: done.append(cell) or pytest.skip("enough seen")
        )
    assert done == [Cell(METHODS[0], 1)]


def test_another_experiment_in_the_folder_is_refused(report, config):
    other = replace(config, run=replace(config.run, model=replace(config.run.model, width=32)))
    with pytest.raises(InputError, match=r"run\.model\.width: 16 -> 32"):
        run_experiment(other)
    with pytest.raises(InputError, match="shots: 4 -> 2"):
        run_experiment(replace(config, shots=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("fit", "fits")}, "no method 'fits'"),
        ({"methods": ("fit", "fit")}, "each once"),
        ({"seeds": ()}, "at least one"),
        ({"methods": ("sft_y",)}, "not among the methods"),
        ({"shots": 0}, "shots"),
    ],
)
def test_wrong_lists_are_reported(change, message):
    with pytest.raises(InputError, match=message):
        check_experiment(ExperimentConfig(**change))


def test_the_command_line_reaches_the_run():
    found = parse_config(ExperimentConfig, ["--seeds", "[3]", "--run.train.steps", "7", "--methods", "[fit]"])
    assert (found.seeds, found.run.train.steps, found.methods) == ((3,), 7, ("fit",))
