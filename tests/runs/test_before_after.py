"""Before and after tuning: both models are measured alike, and what cannot be measured is told."""

import json
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest
import yaml
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import OfflineModeIsEnabled

from fit_jax.errors import InputError
from fit_jax.evaluation.perplexity import Perplexity
from fit_jax.runs import before_after
from fit_jax.runs.before_after import context_length, harness_tasks, load_task, report_perplexity, text_of
from fit_jax.runs.run import TrainedModel


@pytest.fixture
def run(config, encoder, make_scorer, params, tmp_path, monkeypatch):
    """A run of a pretrained model whose tuning doubled every weight."""
    tuned = jax.tree.map(lambda weight: 2 * weight, params)
    graphdef = make_scorer().graphdef
    placed = SimpleNamespace(graphdef=graphdef, state=SimpleNamespace(params=params))
    monkeypatch.setattr(before_after, "load_model", lambda run, which: TrainedModel(graphdef, tuned, 7))
    monkeypatch.setattr(before_after, "starting_state", lambda run, optimizer: placed)
    monkeypatch.setattr(before_after, "scorer", lambda run, graphdef: make_scorer())
    config = replace(config, train=replace(config.train, sequence_length=32))
    return SimpleNamespace(
        config=config, folder=tmp_path, encoder=encoder, model=SimpleNamespace(pretrained="somewhere")
    )


def test_perplexity_of_both_models(run, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("it feels good. a bad lamp, and a bad tent.\n" * 5)
    found = report_perplexity(run, "best", text, text_of(text), run.folder / "report")
    assert list(found) == ["step 7", "before tuning"]
    assert found["before tuning"]["perplexity per token"] == pytest.approx(320, rel=0.2)
    assert found["step 7"]["perplexity per token"] != found["before tuning"]["perplexity per token"]
    assert found["step 7"]["tokens"] == found["before tuning"]["tokens"]
    assert json.loads((tmp_path / "report" / "perplexity.json").read_text())["models"] == found
    shown = capsys.readouterr().out
    assert shown.index("before tuning") < shown.index("step 7")


def test_a_model_from_scratch_has_no_before(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("it feels good.")
    run.model.pretrained = None
    assert list(report_perplexity(run, "best", text, text_of(text), run.folder / "report")) == ["step 7"]


def test_the_tuned_model_is_let_go_before_the_other_is_read(run, monkeypatch):
    class Weights:
        """Stands for arrays on a device."""

    held = []

    def load(run, which):
        weights = Weights()
        held.append(weakref.ref(weights))
        return TrainedModel(None, weights, 7)

    def start(run, optimizer):
        assert held[0]() is None
        return SimpleNamespace(graphdef=None, state=SimpleNamespace(params=Weights()))

    monkeypatch.setattr(before_after, "load_model", load)
    monkeypatch.setattr(before_after, "starting_state", start)
    monkeypatch.setattr(before_after, "perplexity", lambda *asked: Perplexity(nats=1.0, tokens=1, words=1, bytes=1))
    text = run.folder / "text.txt"
    text.write_text("it feels good.")
    assert list(report_perplexity(run, "best", text, text_of(text), run.folder / "report")) == [
        "step 7",
        "before tuning",
    ]


def test_texts_that_cannot_be_read_are_told(run, tmp_path):
    with pytest.raises(InputError, match="name a text file"):
        text_of(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="name a text file"):
        text_of(tmp_path / "binary")
    with pytest.raises(InputError, match="no text"):
        report_perplexity(run, "best", tmp_path / "empty", "", run.folder / "report")


def test_a_model_reads_as_much_as_its_family_where_its_config_does_not_say(run, tmp_path):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2", "vocab_size": 320, **shape}))
    run.model.pretrained = str(tmp_path)
    assert context_length(run) == 8192
    run.model.pretrained = None
    assert context_length(run) == 32


def test_unknown_tasks_and_a_missing_harness_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match="pip install lm-eval"):
        harness_tasks(["hellaswag"])
    monkeypatch.undo()
    pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install lm-eval")
    with pytest.raises(InputError, match="knows no such task"):
        harness_tasks(["no_such_task"])


def test_a_task_of_a_name_that_no_file_can_have_is_told():
    with pytest.raises(InputError, match=r"^--harness \.\.\.n{64}: lm_eval knows no such task"):
        load_task(SimpleNamespace(all_tasks=[]), "n" * 300)


@pytest.mark.parametrize(
    "error",
    [OfflineModeIsEnabled("offline"), DatasetGenerationError("broken"), FileNotFoundError("gone"), yaml.YAMLError()],
)
def test_tasks_whose_data_cannot_be_read_are_told(error):
    def fail(named):
        raise error

    manager = SimpleNamespace(all_tasks=["hellaswag"], load=fail)
    with pytest.raises(InputError, match=rf"--harness hellaswag: .*HF_HOME.*\({error}\)"):
        load_task(manager, "hellaswag")
    error = RuntimeError("unforeseen")
    with pytest.raises(RuntimeError, match="unforeseen"):
        load_task(manager, "hellaswag")
