"""What a run was made from: everything that its fingerprints count, and how they are kept and compared."""

import json
import os
from dataclasses import replace

import pytest

from fit_jax import sums
from fit_jax.config import Config, RehearsalConfig, TaskConfig
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.focus.example import Spurious
from fit_jax.models.adapter_config import CONFIG, WEIGHTS
from fit_jax.models.lora_config import LoraConfig
from fit_jax.runs import inputs
from fit_jax.runs.inputs import FILE, VERSIONS, Inputs, check_inputs, fingerprints, read_inputs, record_versions
from fit_jax.runs.resolve import resolve
from fit_jax.sums import Digests

from .reviews import config_of_reviews


@pytest.fixture
def config(tmp_path) -> Config:
    return config_of_reviews(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "other"},
        {"slots": {"text": "other"}},
        {"candidates": ("positive", "negative")},
        {"label": 2},
        {"spurious": {"keyword": Spurious("other", 0)}},
        {"slices": {"kind": "other"}},
        {"own_answers": True},
        {"cluster": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_an_example_counts(change):
    config = Config(run_dir="run", task=TaskConfig(train_examples=60, validation_examples=8, test_examples=8))
    task = build_task(config.task, 0)
    low = task.splits["low"]
    examples = [*low.examples[:-1], replace(low.examples[-1], **change)]
    other = replace(task, splits={**task.splits, "low": replace(low, examples=examples)})
    before, after = (fingerprints(t, resolve(config)) for t in (task, other))
    assert [name for name in before if before[name] != after[name]] == ["the examples of split low"]


def test_what_a_run_of_an_older_version_did_not_keep_is_no_change(tmp_path):
    assert check_inputs(tmp_path, Inputs({"old": "1"}), {"old": "1", "new": "2"}, "refuse") == []


def test_every_byte_of_a_large_file_counts_and_is_read_again_only_where_it_was_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "LARGE", 8)
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(100))
    os.utime(path, (1, 1))
    monkeypatch.setattr(sums, "SETTLED", -1)
    first = Digests({})
    zeros = first.of(path)
    monkeypatch.setattr(sums, "digest", lambda path: "read again")
    assert Digests(json.loads(json.dumps(first.kept))).of(path) == zeros
    path.write_bytes(bytes(50) + b"\1" + bytes(49))
    os.utime(path, (1, 1))
    assert Digests(first.kept).of(path) == "read again"
    monkeypatch.undo()
    assert Digests({}).of(path) != zeros
    assert Digests({str(path): [1, 2]}).of(path) == Digests({}).of(path)


def test_a_file_that_may_change_within_the_clocks_tick_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "LARGE", 8)
    (tmp_path / "a").write_bytes(bytes(100))
    first = Digests({})
    first.of(tmp_path / "a")
    assert first.kept == {}


@pytest.mark.parametrize("rank", [0, 4])
def test_the_weights_that_training_begins_with_count(config, tmp_path, rank):
    """Also where all are trained: the answers before tuning, and a second stage, come from them."""
    for folder, files in (("base", ("config.json", "model.safetensors")), ("first", (CONFIG, WEIGHTS))):
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).write_text("{}")
    asked = resolve(config)
    model = replace(asked.model, pretrained=str(tmp_path / "base"))
    asked = replace(asked, model=model, lora=LoraConfig(rank=rank, adapter=str(tmp_path / "first")))
    task = build_task(config.task, 0)
    before = fingerprints(task, asked)
    for path, told in (
        (tmp_path / "base" / "model.safetensors", "the weights of model.pretrained"),
        (tmp_path / "first" / WEIGHTS, "lora.adapter"),
    ):
        path.write_text("{ }")
        after = fingerprints(task, asked)
        assert [name for name in before if before[name] != after[name]] == [told]
        before = after
    (tmp_path / "base" / "model.safetensors").unlink()
    assert ("the weights of model.pretrained" in fingerprints(task, asked)) == (rank > 0)


def test_the_weights_of_a_hub_id_are_there_when_their_fingerprint_is_taken(config, tmp_path, monkeypatch):
    """Or a first start would keep the fingerprint of nothing, and every later one be refused."""
    wanted = []

    def download(name, patterns, what):
        wanted.append(patterns)
        return tmp_path

    monkeypatch.setattr(inputs, "local_folder", download)
    asked = resolve(config)
    model = replace(asked.model, pretrained="a/model")
    fingerprints(build_task(config.task, 0), replace(asked, model=model, lora=LoraConfig(rank=4)))
    assert "*.safetensors" in wanted[0]


def test_the_last_of_many_examples_counts(monkeypatch):
    monkeypatch.setattr(inputs, "WINDOW", 7)
    config = Config(run_dir="run", task=TaskConfig(train_examples=60, validation_examples=8, test_examples=8))
    task = build_task(config.task, 0)
    train = task.splits["train"]
    found = set()
    for number in range(len(train.examples)):
        examples = [replace(e, label=1 - e.label) if n == number else e for n, e in enumerate(train.examples)]
        other = replace(task, splits={**task.splits, "train": replace(train, examples=examples)})
        found.add(fingerprints(other, resolve(config))["the examples of split train"])
    assert len(found) == len(train.examples)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"fingerprints": 1, "hub_revisions": {}}', "[" * 10**5])
def test_damaged_fingerprints_are_told(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=r"inputs\.json: .*; put it back from a copy"):
        read_inputs(tmp_path)


def test_changed_versions_are_told_at_the_next_start(tmp_path):
    assert record_versions(tmp_path) == record_versions(tmp_path) == []
    kept = json.loads((tmp_path / VERSIONS).read_text())
    assert {"jax", "flax", "orbax-checkpoint"} <= kept["packages"].keys()
    kept["packages"]["jax"] = "0.0.1"
    (tmp_path / VERSIONS).write_text(json.dumps(kept))
    (line,) = record_versions(tmp_path)
    assert line.startswith("since the last start: jax 0.0.1 -> ")
    assert record_versions(tmp_path) == []  # told once
    (tmp_path / VERSIONS).write_text("{")
    assert record_versions(tmp_path) == []


def test_changed_rehearsal_files_are_refused(config, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("once upon a time")
    config = replace(config, rehearsal=RehearsalConfig(files=(str(texts),)))
    task, resolved = build_task(config.task, config.seed), resolve(config)
    found = fingerprints(task, resolved)
    assert found == fingerprints(task, resolved)
    texts.write_text("once upon another time")
    with pytest.raises(InputError, match=r"not what this run was made from: the files of rehearsal.files;"):
        check_inputs(tmp_path, Inputs(found), fingerprints(task, resolved), "refuse")
    texts.unlink()
    assert not any("rehearsal" in name for name in fingerprints(task, resolved, kept=True))
