"""Run folders travel: a base model and a first adapter on this machine are found again, or named anew, and compared."""

import shutil
from dataclasses import replace

import pytest

import fit_jax
from fit_jax import hub, steer
from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import save_tokenizer
from fit_jax.models.config import ModelConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.runs.copying import copy_run
from fit_jax.runs.inputs import FILE, read_inputs, write_inputs
from fit_jax.runs.run import TrainedModel, open_run, set_up, starting_state
from fit_jax.runs.run_folder import CONFIG, claimed, opened_config, saved_config

from .reviews import config_of_reviews

WEIGHTS = "the weights of model.pretrained"


@pytest.fixture
def begun(imported, adapter, encoder, tmp_path, monkeypatch):
    """Makes a run in `run`, of `base` and `first` where it was started, that has a checkpoint as far as is seen."""
    (tmp_path / "home").mkdir()
    (tmp_path / "far" / "away").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    shutil.copytree(imported, "base")
    save_tokenizer(encoder.tokenizer, tmp_path / "home" / "base")
    shutil.copytree(adapter, "first")

    def make(lora: LoraConfig) -> Config:
        config = replace(config_of_reviews(tmp_path), model=ModelConfig(pretrained="base"), lora=lora)
        config = replace(config, train=replace(config.train, sequence_length=600))
        with claimed(config):
            set_up(config, trains=True)
            (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
        return config

    return make


def test_a_run_finds_its_base_wherever_it_and_the_user_are(begun, tmp_path, monkeypatch):
    config = begun(LoraConfig(rank=3, adapter="first"))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "far" / "away")
    assert open_run(tmp_path / "copy").model.pretrained == str(tmp_path / "home" / "base")
    monkeypatch.chdir(tmp_path)
    moved = replace(config.model, pretrained="home/base")
    config = replace(config, model=moved, lora=replace(config.lora, adapter="home/first"))
    with claimed(config):  # also who goes on training it
        set_up(config, trains=True)


@pytest.mark.parametrize("rank", [0, 4])
def test_a_base_that_was_moved_is_told_and_named_anew(begun, tmp_path, monkeypatch, rank):
    begun(LoraConfig(rank=rank))
    monkeypatch.chdir(tmp_path / "far" / "away")
    (tmp_path / "home").rename(tmp_path / "hall")
    with pytest.raises(InputError, match=r"home/base: .* as model\.pretrained or lora\.adapter in .*run/config\.yaml"):
        steer.main([str(tmp_path / "run"), "--text", "good"])
    set_up(opened_config(tmp_path / "run", ["--model.pretrained", "../../hall/base"]))
    path = tmp_path / "run" / CONFIG
    path.write_text(path.read_text().replace("/home/base", "/hall/base"))
    open_run(tmp_path / "run")


def test_a_place_is_no_licence_for_another_base_or_adapter(begun, tmp_path):
    begun(LoraConfig(rank=3, adapter="first"))
    for folder, name, told in (
        ("base", "model.safetensors", WEIGHTS),
        ("first", "adapter_model.safetensors", "lora.adapter"),
    ):
        other = shutil.copytree(folder, tmp_path / f"other_{folder}")
        path = other / name
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
        option = "--model.pretrained" if folder == "base" else "--lora.adapter"
        with pytest.raises(InputError, match=f"not what this run was made from: {told}"):
            set_up(opened_config(tmp_path / "run", [option, str(other)]))
        with pytest.raises(InputError, match=f"{option[2:]}: .*: cannot change in a trained run"):
            opened_config(tmp_path / "run", [option, "null"])


def test_weights_of_another_place_must_be_proved_the_same(begun, tmp_path):
    """Those of the hub have no fingerprint in a run that trains them all: its checkpoints hold them."""
    begun(LoraConfig())
    kept = read_inputs(tmp_path / "run")
    prints = {name: value for name, value in kept.prints.items() if name != WEIGHTS}
    assert len(prints) < len(kept.prints)
    write_inputs(tmp_path / "run", replace(kept, prints=prints))
    open_run(tmp_path / "run")
    other = shutil.copytree("base", tmp_path / "other")
    with pytest.raises(InputError, match=f"not what this run was made from: {WEIGHTS}"):
        set_up(opened_config(tmp_path / "run", ["--model.pretrained", str(other)]))


def test_a_run_of_an_earlier_version_is_found_from_where_it_was_started(begun, tmp_path):
    begun(LoraConfig(rank=3))
    path = tmp_path / "run" / CONFIG
    written = path.read_text()
    path.write_text(written.replace(str(tmp_path / "home" / "base"), "base"))
    assert path.read_text() != written
    assert open_run(tmp_path / "run").model.pretrained == str(tmp_path / "home" / "base")


def test_ids_of_the_hub_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "commits_of_ids", {})
    config = Config(run_dir=str(tmp_path / "run"), model=ModelConfig(pretrained="owner/model"))
    with claimed(config):
        assert saved_config(tmp_path / "run") == config


def test_a_copy_with_its_base_answers_the_same_wherever_it_is_moved(begun, tmp_path, monkeypatch):
    run = set_up(begun(LoraConfig(rank=3, adapter="first")))
    state = starting_state(run, None)
    copy_run(run, TrainedModel(state.graphdef, state.state.params, 1), tmp_path / "copy", 3)
    answer = fit_jax.load(tmp_path / "copy").ask("review 1 is bad")
    shutil.rmtree(tmp_path / "home" / "base")
    shutil.rmtree(tmp_path / "home" / "first")
    (tmp_path / "copy").rename(tmp_path / "far" / "copy")
    monkeypatch.chdir(tmp_path / "far" / "away")
    moved = fit_jax.load("../copy")
    assert moved.ask("review 1 is bad") == answer
    assert (tmp_path / "far" / "copy" / FILE).is_file()
    moved.copy_to("again", examples=2)  # what was copied can be given on
    assert saved_config(tmp_path / "far" / "away" / "again").model.pretrained.endswith("/far/away/again/base")
