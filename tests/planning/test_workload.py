"""A plan is made for what a run would resolve to, from configs alone."""

import json
import shutil

import pytest

from fit_jax.config import TaskConfig, load_config
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import save_tokenizer, train_tokenizer
from fit_jax.methods import TRAINED, training_method
from fit_jax.methods.candidates import CandidateLoss
from fit_jax.planning.workload import workload
from fit_jax.runs.resolve import resolve

from ..stored_models import ADAPTER


def test_an_imported_model_with_an_adapter_is_planned_as_it_is_trained(imported, adapter, tmp_path):
    model = shutil.copytree(imported, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors*"))
    config = load_config(["--model.pretrained", str(model), "--lora.adapter", str(adapter), "--model.remat", "full"])
    load, run = workload(config), resolve(config)
    assert load.model == run.decoder(320)
    assert load.lora == run.lora
    assert load.lora.rank == ADAPTER.rank
    assert not any("not available" in note for note in load.notes)


def test_a_model_that_is_not_available_has_the_written_shape(tmp_path):
    absent = ["--model.pretrained", str(tmp_path / "none")]
    with pytest.raises(InputError, match="write the model's shape"):
        workload(load_config(absent))
    load = workload(load_config([*absent, "--model.vocab_size", "50", "--lora.rank", "4"]))
    assert (load.model.vocab_size, load.lora.rank, load.model.pretrained) == (50, 4, absent[1])
    assert any("not available" in note for note in load.notes)


def test_a_damaged_model_is_no_absent_one(tmp_path):
    """Or a plan would be made for the written shape where the run will refuse the folder."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(InputError, match="mamba"):
        workload(load_config(["--model.pretrained", str(tmp_path), "--model.vocab_size", "50"]))


def test_the_vocabulary_is_the_tokenizers(tmp_path):
    assert workload(load_config(["--tokenizer.vocab_size", "700"])).model.vocab_size == 700
    tokenizer = train_tokenizer(["a few words to learn tokens from, and a few more of them"], 300)
    save_tokenizer(tokenizer, tmp_path)
    load = workload(load_config(["--tokenizer.path", str(tmp_path)]))
    assert load.model.vocab_size == len(tokenizer)
    assert any(str(tmp_path) in note for note in load.notes)


def test_the_shapes_are_the_configs():
    options = ["--train.batch_size", "48", "--train.sequence_length", "640", "--train.accumulate", "3"]
    options += ["--evaluation.batch_size", "5", "--focus.branches", "1", "--train.steps", "null"]
    load = workload(load_config([*options, "--mesh.fsdp", "2"]), slices=2)
    assert (load.rows, load.sequence_length, load.targets, load.accumulate) == (48, 640, 20, 3)
    assert (load.evaluation_rows, load.steps) == (5, None)
    assert (load.mesh.fsdp, load.mesh.slices) == (2, 2)
    assert any("one per 32 tokens" in note for note in load.notes)
    assert workload(load_config(["--train.targets_per_row", "7"])).targets == 7


@pytest.fixture(scope="module")
def task():
    return build_task(TaskConfig(train_examples=40, validation_examples=12, test_examples=10), 0)


@pytest.mark.parametrize("method", TRAINED)
def test_a_plan_says_where_rows_hold_all_candidates(method, task):
    """Of every method, and by what it trains with, whatever its module says of itself."""
    config = load_config(["--train.method", method])
    compares = isinstance(training_method(task, config).objective, CandidateLoss)
    said = f"train.method {method}: planned with the step of fit; a row answers every candidate"
    assert any(note.startswith(said) for note in workload(config).notes) is compares
