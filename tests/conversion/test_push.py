"""Runs on a hub: what is pushed, in one commit, and what is said where the hub says no."""

import re
from hashlib import sha256
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import numpy as np
import pytest

from fit_jax import convert, load, push, train
from fit_jax.config import Config
from fit_jax.config_files import dump_config
from fit_jax.conversion import push as pushing
from fit_jax.errors import InputError, RunFailed
from fit_jax.focus.tokenizers import save_tokenizer, train_tokenizer

from . import hub as stand_in


@pytest.fixture
def hub(monkeypatch):
    """A hub that this process talks to, with the right token."""
    with stand_in.serving() as hub:
        stand_in.use(monkeypatch, hub.address)
        monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
        yield hub


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a run's as far as is looked before anything is written."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(Config(run_dir=str(folder))))
    (folder / "MODEL_CARD.md").write_text("card")

    def write(folder, made, name, adapter, trust_code):
        made.mkdir()
        for file in ("README.md", "model.safetensors"):
            (made / file).write_text("content")

    monkeypatch.setattr(pushing, "write_upload", write)
    return folder


def test_a_push_is_one_commit(hub, run, capsys):
    assert not push.main([str(run), "--to", "ann/demo", "--private"])
    assert hub.repositories == {"ann/demo": {"README.md": b"content", "model.safetensors": b"content"}}
    assert (hub.private, hub.commits) == ({"ann/demo"}, ["ann/demo"])
    assert capsys.readouterr().out == f"ann/demo: model pushed: {hub.address}/ann/demo/commit/{'a' * 40}\n"
    assert not push.main([str(run), "--to", "ann/demo"])  # over one that is there
    assert hub.commits == ["ann/demo"] * 2


@pytest.mark.parametrize(
    ("end", "status", "error", "said"),
    [
        ("whoami-v2", 401, InputError, "does not take the token; log in again"),
        ("create", 403, InputError, "may not write there"),
        ("create", 404, InputError, "knows no such user"),
        ("commit/main", 403, InputError, "may not write there"),
        ("commit/main", 409, RunFailed, "something else was pushed there meanwhile"),
        (sha256(b"content").hexdigest(), 403, RunFailed, "the upload failed"),
        ("commit/main", 500, RunFailed, "start the same command again later"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(hub, run, end, status, error, said):
    hub.refuses[end] = status
    with pytest.raises(error, match=rf"^ann/demo: [^\n]*{said}[^\n]*\b{status}\b[^\n]*$"):
        push.main([str(run), "--to", "ann/demo"])
    assert not hub.commits
    assert not any(hub.repositories.values())


def test_a_hub_that_is_away_is_one_line(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    with stand_in.serving() as hub:
        stand_in.use(monkeypatch, hub.address)
    with pytest.raises(RunFailed, match=r"^ann/demo: the hub cannot be reached \([^\n]+$"):
        push.main([str(run), "--to", "ann/demo"])


def test_what_is_missing_here_is_told_before_the_hub_is_asked(run, monkeypatch, tmp_path):
    stand_in.use(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    for arguments, said in (
        ([str(run), "--to", "ann/demo"], "no token of the hub here; log in"),
        ([str(run), "--to", "demo"], "--to demo: write USER/NAME"),
        ([str(run), "--to", "ann/a b"], "write USER/NAME"),
        ([str(tmp_path / "absent"), "--to", "ann/demo"], "holds no run"),
    ):
        with pytest.raises(InputError, match=said):
            push.main(arguments)
    (run / "MODEL_CARD.md").unlink()
    with pytest.raises(InputError, match="not evaluated"):
        push.main([str(run), "--to", "ann/demo"])


SMALL = [
    *("--task.train_examples", "120", "--task.validation_examples", "16", "--task.test_examples", "4"),
    *("--train.steps", "6", "--train.batch_size", "8", "--train.sequence_length", "512", "--evaluation.examples", "4"),
    *("--lora.rank", "4", "--optimizer.learning_rate", "0.05", "--evaluation.paraphrases_each", "1"),
]


@pytest.mark.slow
def test_an_adapter_from_the_hub_answers_as_its_run(hub, tmp_path, monkeypatch, capsys):
    """By the code of its card, in transformers and peft."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    base, folder = tmp_path / "base", tmp_path / "run"
    shape = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=400, num_key_value_heads=2, **shape)).save_pretrained(base)
    save_tokenizer(train_tokenizer(["I bought the kettle last week, the handle is awful."] * 9, 300), base)
    assert not train.main([*SMALL, "--model.pretrained", str(base), "--run_dir", str(folder)])
    capsys.readouterr()
    assert not push.main([str(folder), "--to", "ann/tuned"])
    said = capsys.readouterr().out
    assert "adapter pushed" in said
    assert f"note: the adapter stands on {base}" in said
    assert len(hub.commits) == 1
    files = hub.repositories["ann/tuned"]
    named = ("README.md", "prompt.py", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json")
    assert {*named, "metrics.jsonl", "focus_accuracy.jsonl"} <= set(files)
    card = files["README.md"].decode()
    assert "base_model:" not in card  # a folder of this machine
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    text = "The handle is awful, and Marlin it came with a sticker."
    exec(code.replace('text="..."', f"text={text!r}"), space := {})
    answer = load(folder).ask(text, focus="core")
    assert answer.instruction in space["prompt"]
    found = []
    for word in answer.probabilities:
        whole = space["prompt"] + " " + word + space["asked"]["END"]
        ids = space["tokenizer"](whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            scores = space["model"](ids).logits[0].log_softmax(-1)
        start = space["ids"]["input_ids"].shape[1]
        found.append(sum(float(scores[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])))
    shares = np.exp(found) / np.exp(found).sum()
    np.testing.assert_allclose(shares, list(answer.probabilities.values()), rtol=2e-3)

    assert not convert.main(["export-merged", "--from", str(folder), "--to", str(tmp_path / "export")])
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    code = re.search(r"## transformers.*?```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path / "export")
    monkeypatch.syspath_prepend(tmp_path / "export")
    exec(code, merged := {})
    with torch.no_grad():
        ours, theirs = (s["model"](space["ids"]["input_ids"]).logits[0, -1] for s in (space, merged))
    np.testing.assert_allclose(theirs, ours, atol=1e-3 * float(ours.abs().max()))
    assert merged["prompt"] == space["prompt"]
