"""Methods of two stages: what the first stage hands on, what the second changes, and the budget that they share."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.methods import training_method
from fit_jax.methods.dfr import of_last_layer
from fit_jax.methods.jtt import error_set
from fit_jax.parallel.sharding import named_leaves
from fit_jax.runs import trainer
from fit_jax.runs.run import load_model, subject
from fit_jax.runs.run_folder import FIRST_STAGE
from fit_jax.runs.trainer import Ending, train
from fit_jax.training import loop

from .biased_task import make_run

SHORT = {"steps": 8, "validate_every": None, "checkpoint_every": 1}


def steps_of(folder) -> int:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = {method: make_run(tmp_path_factory.mktemp(method), method, **SHORT) for method in ("jtt", "dfr")}
    for run in made.values():
        assert train(run) is Ending.ALL_STEPS
    return made


def parameters(run, stage: str = "") -> dict[str, np.ndarray]:
    """The last checkpoint's trained parameters."""
    model = load_model(replace(run, folder=run.folder / stage), "last")
    return {name: np.asarray(leaf) for name, leaf in named_leaves(model.params[0]).items()}


@pytest.mark.parametrize(("method", "steps"), [("jtt", (2, 6)), ("dfr", (6, 2))])
def test_the_stages_share_the_updates(runs, method, steps):
    folder = runs[method].folder
    assert (steps_of(folder / FIRST_STAGE), steps_of(folder)) == steps
    assert train(runs[method]) is Ending.ALREADY


def test_jtt_takes_each_error_of_the_first_run_as_often_as_it_is_told(runs):
    run = runs["jtt"]
    examples = run.task.splits["train"].examples
    first = subject(replace(run, folder=run.folder / FIRST_STAGE), "last")
    wrong = error_set(first, examples)
    assert 0 < wrong.sum() < len(examples)
    second = training_method(run.task, run.config).second
    assert second is not None
    assert not second.goes_on
    method = second.build(first)
    counts = np.bincount(method.sampler.order(0), minlength=len(examples))
    np.testing.assert_array_equal(counts, np.where(wrong, run.config.train.jtt_weight, 1))
    assert method.figures["error_set"] == pytest.approx(wrong.mean())


def test_dfr_trains_the_last_layer_alone_on_examples_the_first_stage_never_saw(runs):
    run = runs["dfr"]
    before, after = parameters(run, FIRST_STAGE), parameters(run)
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert moved == {"lm_head.kernel", "final_norm.scale"}
    # Further than two updates of AdamW would go at the run's own learning rate.
    assert np.abs(after["lm_head.kernel"] - before["lm_head.kernel"]).max() > 2 * run.config.optimizer.learning_rate
    method = training_method(run.task, run.config)
    assert method.second is not None
    later = method.second.build(subject(replace(run, folder=run.folder / FIRST_STAGE), "last"))
    kept, held_out = ({e.uid for e in m.sampler.examples} for m in (method, later))
    assert kept | held_out == {e.uid for e in run.task.splits["train"].examples}
    assert not kept & held_out
    assert len(held_out) == 120
    drawn = [later.sampler.examples[i] for i in later.sampler.order(0)]
    agrees = [e.spurious["keyword"].label == e.label for e in drawn]
    assert np.mean(agrees) == pytest.approx(0.5)


def test_the_last_layer_where_the_projection_cannot_be_trained_alone():
    last = of_last_layer(["last_block.mlp.up_proj.lora_a", "blocks.mlp.up_proj.lora_a"])
    assert last("last_block.mlp.up_proj.lora_a")
    assert not last("blocks.mlp.up_proj.lora_a")
    assert not of_last_layer(["lm_head.kernel"])("last_block.mlp.up_proj.kernel")


def test_a_run_whose_second_stage_was_lost_goes_on_from_its_first(runs, tmp_path):
    """With the same parameters, bit for bit, as one that ran through."""
    run = make_run(tmp_path, "jtt", **SHORT)
    shutil.copytree(runs["jtt"].folder / FIRST_STAGE, tmp_path / FIRST_STAGE)
    assert train(run) is Ending.ALL_STEPS
    through, again = parameters(runs["jtt"]), parameters(run)
    for name, expected in through.items():
        np.testing.assert_array_equal(again[name], expected)


def test_a_second_stage_that_was_cut_off_goes_on_from_its_own_checkpoint(runs, tmp_path):
    """With the same parameters, bit for bit, as one that ran through."""
    shutil.copytree(runs["dfr"].folder, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "2")  # the last
    run = make_run(tmp_path, "dfr", **SHORT)
    assert train(run) is Ending.ALL_STEPS
    through, again = parameters(runs["dfr"]), parameters(run)
    for name, expected in through.items():
        np.testing.assert_array_equal(again[name], expected)


def test_the_second_stage_takes_the_last_checkpoint_of_the_first(runs, tmp_path, monkeypatch):
    asked = []

    def load(run, which):
        asked.append((run.folder, which))
        raise InputError("no further")

    shutil.copytree(runs["jtt"].folder / FIRST_STAGE, tmp_path / FIRST_STAGE)
    monkeypatch.setattr(trainer, "load_model", load)
    with pytest.raises(InputError, match="no further"):
        train(make_run(tmp_path, "jtt", **SHORT))
    assert asked == [(tmp_path / FIRST_STAGE, "last")]


def test_a_run_told_to_stop_in_its_first_stage_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "stop_requests", lambda: nullcontext(lambda last: True))
    assert train(make_run(tmp_path, "jtt", **SHORT)) is Ending.STOPPED
    assert {path.name for path in (tmp_path / FIRST_STAGE / "checkpoints").iterdir()} == {"1", "1.whole"}
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "dfr", "dfr_held_out": 0.001}, r"train\.dfr_held_out: 0\.001 holds 1 of 600 examples out"),
        ({"method": "jtt", "steps": 1}, r"train\.steps: 1, but jtt trains twice"),
    ],
)
def test_what_leaves_a_stage_nothing_is_reported(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(make_run(tmp_path, **{**SHORT, **changes}))
