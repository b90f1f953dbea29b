"""The notebooks, cell by cell, with training cut short."""

import json
import re
from pathlib import Path

import pytest

import fit_jax
from fit_jax.focus.tokenizers import save_tokenizer

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
TINY = {
    "train.steps": 2,
    "train.batch_size": 8,
    "model.layers": 1,
    "model.width": 32,
    "evaluation.examples": 4,
}


def cells(name: str, without: str = "") -> list[str]:
    """The code of a notebook's cells; those with the tag `without` are left out."""
    found = json.loads((FOLDER / name).read_text())["cells"]
    code = [cell for cell in found if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in code if without not in cell["metadata"].get("tags", [])]


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Lets `fit_jax.tune` train for two steps, and the notebook work in a folder of its own."""
    tune = fit_jax.tune
    monkeypatch.chdir(tmp_path)

    def two_steps(run_dir, config=None, settings=None, **more):
        pretrained = "model.pretrained" in (settings or {})
        tiny = {k: v for k, v in TINY.items() if not (pretrained and k.startswith("model."))}
        return tune(run_dir, config, {**(settings or {}), **tiny}, **more)

    monkeypatch.setattr(fit_jax, "tune", two_steps, raising=False)


def run(name: str, **replaced: str) -> dict:
    """Runs the code of a notebook; the names given keep these values."""
    space: dict = {}
    for code in cells(name, without="skipped-in-tests"):
        exec(compile(code, name, "exec"), space)
        space.update(replaced)
    return space


def test_notebooks_are_kept_without_outputs():
    assert {path.name for path in FOLDER.glob("*.ipynb")} == {
        "first_steps.ipynb",
        "own_table.ipynb",
        "hugging_face.ipynb",
    }
    for path in FOLDER.glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            assert cell.get("outputs", []) == []
            assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_installation_and_says_which_cells_cannot_run_here(path):
    install, *others = cells(path.name)
    assert install not in cells(path.name, without="skipped-in-tests")
    assert re.search(r"^!git clone .*\n%pip install ", install, re.MULTILINE)
    marked = set(cells(path.name)) - set(cells(path.name, without="cannot-run-here"))
    assert marked == {code for code in (install, *others) if code.startswith("# Cannot run here")}
    assert marked == {install, *(code for code in others if "MODEL" in code and not code.startswith("MODEL ="))}


@pytest.mark.slow
def test_first_steps(short, capsys):
    space = run("first_steps.ipynb")
    assert set(space["table"]["split"]) == {"iid", "low"}
    assert "focus(core) & ignore(keyword)" in capsys.readouterr().out


@pytest.mark.slow
def test_own_table(short):
    space = run("own_table.ipynb")
    assert list(space["answered"].columns)[-3:] == ["answer", "p(yes)", "p(no)"]
    assert len(space["answered"]) == 5


@pytest.mark.slow
def test_hugging_face(short, tmp_path, encoder):
    pytest.importorskip("peft", reason="the notebook loads its adapter with peft")
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path / "base"
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=len(encoder.tokenizer), **shape, **heads)).save_pretrained(folder)
    save_tokenizer(encoder.tokenizer, folder)
    space = run("hugging_face.ipynb", MODEL=str(folder))
    assert any("lora_A" in name for name, _ in space["tuned"].named_parameters())
