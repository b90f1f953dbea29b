"""A run folder may be another's: no Python code that it names runs unless the user says so."""

import json
import shutil

import pytest

import fit_jax
from fit_jax import convert, evaluate, push, steer
from fit_jax.config import Config, TaskConfig, TokenizerConfig
from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.playground import __main__ as playground
from fit_jax.runs.run import set_up
from fit_jax.runs.run_folder import TASK, claimed, saved_config

from ..tickets import TICKETS

CODE = "from pathlib import Path\nPath({ran!r}).touch()\n\n\ndef length(row):\n    return row['long']\n"


@pytest.fixture
def ran(tmp_path):
    """The file that the code makes."""
    return tmp_path / "ran"


@pytest.fixture
def foreign(tmp_path, ran):
    """The folder of a run, trained as far as anyone sees, whose examples are gone and come from code beside it."""
    rows = [
        {"text": f"ticket {n}", "urgent": ("no", "yes")[n % 2], "long": ("short", "long")[n // 2 % 2]}
        for n in range(240)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(
        json.dumps({**TICKETS, "features": [{"key": "length", "function": "code.py:length"}]})
    )
    (tmp_path / "code.py").write_text(CODE.format(ran=str(ran)))
    config = Config(
        run_dir=str(tmp_path / "run"),
        task=TaskConfig(name="jsonl", file=str(tmp_path / "own.yaml")),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(layers=1, width=16, feed_forward=24, heads=2, kv_heads=1),
    )
    with claimed(config):
        set_up(config, trains=True)
    folder = tmp_path / "run"
    shutil.rmtree(folder / TASK)
    (folder / "checkpoints" / "3").mkdir(parents=True)
    (folder / "MODEL_CARD.md").touch()
    assert ran.exists()  # a run that is to be trained is one's own
    ran.unlink()
    return folder


OPENED = {
    "steer": lambda folder: steer.main([folder, "--text", "a"]),
    "evaluate": lambda folder: evaluate.main([folder]),
    "export-merged": lambda folder: convert.main(["export-merged", "--from", folder, "--to", f"{folder}-out"]),
    "export-adapter": lambda folder: convert.main(["export-adapter", "--from", folder, "--to", f"{folder}-out"]),
    "push": lambda folder: push.main([folder, "--to", "user/name"]),
    "load": fit_jax.load,
    "playground": lambda folder: playground.main([folder]),
}


@pytest.mark.parametrize("opened", OPENED)
def test_code_that_a_run_folder_names_is_refused(opened, foreign, ran, monkeypatch):
    monkeypatch.setattr(playground, "is_installed", lambda name: True)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda api: {})
    told = r"runs Python code: 'code.py:length'; look at .*own.yaml.* --trust_code"
    with pytest.raises(InputError, match=told):
        OPENED[opened](str(foreign))
    assert not ran.exists()


def test_code_runs_where_that_is_said(foreign, ran):
    with pytest.raises(InputError, match="checkpoint"):  # the next thing that is wrong
        steer.main([str(foreign), "--text", "a", "--trust_code"])
    assert ran.exists()


def test_a_folder_without_checkpoints_is_told_before_its_code(foreign, ran):
    shutil.rmtree(foreign / "checkpoints")
    with pytest.raises(InputError, match="holds no checkpoint yet; train first"):
        fit_jax.load(foreign)
    assert not ran.exists()


def test_a_run_that_keeps_its_examples_needs_no_code(foreign, ran):
    set_up(saved_config(foreign), trains=True)
    ran.unlink()
    set_up(saved_config(foreign))
    assert not ran.exists()
