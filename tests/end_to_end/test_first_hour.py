"""docs/first_hour.md: its commands in their order, trained for a few steps, end with a model that peft loads."""

import importlib
import re
import shlex
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.conversion import hub as stand_in

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHORT = ["--train.steps", "2", "--evaluation.examples", "4", "--evaluation.paraphrases_each", "1"]
DEMO = ["--task.train_examples", "120", "--model.layers", "1", "--model.width", "32", "--train.batch_size", "8"]


def blocks(page, language=""):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_first_hour(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft", reason="its last step loads the adapter with peft: pip install peft")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    commands = blocks("first_hour.md")[0].strip().splitlines()
    assert len(commands) <= 12
    exec(compile(blocks("own_data.md", "python")[0], "docs/own_data.md", "exec"), {})  # the table
    done = []
    with stand_in.serving() as hub:
        stand_in.use(monkeypatch, hub.address)
        for line in commands:
            if line == "make demo":
                line = f"python -m fit_jax.train --config demo --run_dir runs/demo {shlex.join(DEMO)}"
            _, _, called, *arguments = [*shlex.split(line.replace(" --train.steps 600", "")), "", ""]
            name = called.removeprefix("fit_jax.")
            if name == called or name == "playground":  # the shell's, and what serves until it is interrupted
                continue
            module = importlib.import_module(f"fit_jax.{name}{'.__main__' * (name == 'data')}")
            assert not module.main([a for a in arguments if a] + (SHORT if name == "train" else []))
            done.append(name)
        assert done == ["train", "data", "convert", "train", "steer", "push"]
        assert "focus(channel)" in capsys.readouterr().out
        exec(compile(blocks("first_hour.md", "python")[0], "load.py", "exec"), loaded := {})
    assert loaded["model"].peft_config["default"].r == 32
