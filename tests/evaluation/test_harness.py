"""The adapter for lm-evaluation-harness against the harness' own Hugging Face backend, on the same weights."""

import json

import jax
import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install lm-eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from fit_jax.config import MeshConfig
from fit_jax.conversion.opened import open_model
from fit_jax.errors import InputError
from fit_jax.evaluation.harness import HarnessModel, of_one_context
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.tokenizers import save_tokenizer
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.before_after import load_task

from ..closeness import assert_close

LENGTH = 64  # tokens that the model reads; some of the requests are longer
WORDS = (" good", " bad", " a lamp, and a tent")
OWN_TASK = """
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: nowhere.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: a
doc_to_choice: [a]
doc_to_target: 0
"""
TEXTS = ("it feels good.", "a bad lamp, and a bad tent.", "The kettle:\nfine handle, poor lid. " * 9)


@pytest.fixture(scope="module")
def models(encoder, tmp_path_factory):
    """Ours and theirs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokenizer = encoder.tokenizer
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, **shape, **ids))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    loaded = open_model(str(folder))
    scorer = Scorer(loaded.graphdef, make_mesh(MeshConfig(), jax.devices()[:1]), 8)
    theirs = HFLM(str(folder), device="cpu", batch_size=4, dtype="float32")
    return HarnessModel(scorer, loaded.params, loaded.tokenizer, LENGTH), theirs


def requests(kind: str, arguments) -> list[Instance]:
    return [Instance(kind, {}, a, number) for number, a in enumerate(arguments)]


def test_continuations_score_alike(models):
    contexts = ("", "the review says it is", "the review says it is ", *TEXTS)
    asked = requests("loglikelihood", [(c, word) for c in contexts for word in WORDS])
    ours, theirs = (model.loglikelihood(asked) for model in models)
    assert_close([p for p, _ in ours], [p for p, _ in theirs], tolerance=1e-4)
    assert [bool(greedy) for _, greedy in ours] == [bool(greedy) for _, greedy in theirs]


def test_whole_texts_score_alike(models):
    asked = requests("loglikelihood_rolling", [(text,) for text in TEXTS * 3])
    ours, theirs = (model.loglikelihood_rolling(asked) for model in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_contexts_are_shared_where_that_is_no_burden():
    """Four answers to a long context are one tree; texts that share a start token alone are not."""
    long, start = list(range(40)), [1]
    answers = [(None, long, [n, n]) for n in range(4)]
    texts = [(None, start, [n] * 30) for n in range(50)]
    runs = list(of_one_context([*answers, *texts]))
    assert [len(run) for run in runs[:2]] == [4, 2]
    assert [request for run in runs for request in run] == [*answers, *texts]
    assert max(len(run) for run in runs[1:]) == 2


@pytest.mark.parametrize("until", [[], ["e"], ["\n", ". ", "zz"]])
def test_both_write_the_same(models, until):
    asked = requests("generate_until", [(text, {"until": list(until), "max_gen_toks": 12}) for text in TEXTS])
    ours, theirs = (model.generate_until(asked) for model in models)
    assert ours == theirs
    assert not any(stop in text for text in ours for stop in until)


@pytest.mark.parametrize("prompted", [True, False])
def test_conversations_are_written_alike(models, prompted):
    ours, theirs = models
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"
    template += "{% if add_generation_prompt %}<assistant>{% endif %}"
    history = [{"role": "user", "content": "a lamp"}, {"role": "assistant", "content": "it feels  "}]
    ours.tokenizer.chat_template = theirs.tokenizer.chat_template = template
    assert ours.apply_chat_template(history, prompted) == theirs.apply_chat_template(history, prompted)
    ours.tokenizer.chat_template = "{% for i in range(10**9) %}{{ i }}{% endfor %}"
    with pytest.raises(InputError, match="fails"):
        ours.apply_chat_template(history, prompted)


def test_wishes_that_cannot_be_met_are_told(models):
    for options, message in (({"num_beams": 4}, "num_beams"), ({"max_gen_toks": LENGTH}, "leave no context")):
        with pytest.raises(InputError, match=message):
            models[0].generate_until(requests("generate_until", [("a", options)]))


def test_a_task_gives_the_same_accuracy(models, tmp_path):
    rng = np.random.default_rng(0)
    words = ["good", "bad", "lamp", "tent", "kettle", "handle"]
    texts = [" ".join(rng.choice(words, 4)) for _ in range(30)]
    rows = [
        {"query": text, "choices": rng.permutation(words)[:3].tolist(), "gold": int(rng.integers(3))} for text in texts
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "words",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    (tmp_path / "words.yaml").write_text(yaml.safe_dump(task))
    manager = TaskManager(include_defaults=False)
    asked = {"tasks": load_task(manager, str(tmp_path / "words.yaml")), "task_manager": manager}
    (tmp_path / "words.yaml").unlink()  # both models answer what was loaded
    ours, theirs = (simple_evaluate(model, bootstrap_iters=0, **asked)["results"]["words"] for model in models)
    for metric in ("acc,none", "acc_norm,none"):
        assert ours[metric] == theirs[metric]
    assert 0 < ours["acc,none"] < 1


@pytest.mark.parametrize("text", ["task: [\n", "task: own\ninclude: nowhere.yaml", OWN_TASK])
def test_a_task_file_that_cannot_be_used_is_told(text, tmp_path):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=r"--harness \S+/own\.yaml: lm_eval cannot read the task or its data set"):
        load_task(TaskManager(include_defaults=False), str(tmp_path / "own.yaml"))
