"""docs/first_hour.md: its commands in their order, trained for a few steps, end with a model that peft loads."""

import importlib
import shlex

import huggingface_hub.constants
import pytest

from tests.conversion import hub as stand_in
from tests.documented import ROOT, commands

SHORT = ["--train.steps", "2", "--evaluation.examples", "4", "--evaluation.paraphrases_each", "1"]
DEMO = ["--task.train_examples", "120", "--model.layers", "1", "--model.width", "32", "--train.batch_size", "8"]


@pytest.mark.slow
def test_the_first_hour(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft", reason="its last step loads the adapter with peft: pip install peft")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    page = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
    block = page[page.index("```bash") : page.index("```\n\n") + 4]
    done, loaded = [], {}
    with stand_in.serving() as hub:
        stand_in.use(monkeypatch, hub.address)
        for command in commands(block):
            line = command.called
            if line == "make demo":
                line = f"python -m fit_jax.train --config demo --run_dir runs/demo {shlex.join(DEMO)}"
            if line.startswith("awk"):  # the first block of that page
                _, code, *_ = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8").split("```python\n")
                exec(compile(code.partition("```")[0], "docs/own_data.md", "exec"), {})
            elif line.startswith("python - <<'END'\n"):
                exec(compile(line.removesuffix("END").partition("\n")[2], "docs/first_hour.md", "exec"), loaded)
            if not line.startswith("python -m fit_jax."):
                continue
            _, _, called, *arguments = shlex.split(line.replace(" --train.steps 600", ""))
            name = called.removeprefix("fit_jax.")
            if name == "playground":  # which serves until it is interrupted
                continue
            module = importlib.import_module(f"fit_jax.{name}{'.__main__' * (name == 'data')}")
            assert not module.main(arguments + (SHORT if name == "train" else []))
            done.append(name)
        assert done == ["train", "data", "convert", "train", "steer", "push"]
    assert loaded["AutoPeftModelForCausalLM"]
    shown = capsys.readouterr().out
    assert "focus(channel)" in shown
    assert "PeftModelForCausalLM" in shown
