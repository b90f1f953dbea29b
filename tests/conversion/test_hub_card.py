"""What is pushed of a run: a card whose code runs, and which says what was uploaded, its licence, data and results."""

import json
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard

from fit_jax import push, train
from fit_jax.conversion.hub_card import hub_card
from fit_jax.conversion.opened import STORED
from fit_jax.focus.tokenizers import save_tokenizer, train_tokenizer
from fit_jax.models.export import save_merged
from fit_jax.models.families import config_to_hf
from fit_jax.runs.run import open_run

from ..demo_run import SMALLEST
from ..stored_models import SHAPE, random_decoder
from . import hub as stand_in

SMALL = replace(SHAPE, family="qwen2", layers=1)
# Columns as tables have them: one is no name in Python, the other the name of an argument.
ASKED = {"verified purchase": "yes", "instruction": "Say whether it is good.", "text": "It is bad."}

DESCRIPTION = {
    "name": "reviews",
    "files": ["reviews.jsonl"],
    "instruction": "Is the review positive?",
    "input": "Bought: {verified purchase}. {instruction} {text}",
    "core": "the sentiment",
    "candidates": ["negative", "positive"],
    "features": [{"key": "bought", "column": "verified purchase"}],
}


def rows():
    for n in range(240):
        good = n % 2 == 0
        texts = {"verified purchase": "yes" if n % 3 else "no", "instruction": f"Task {n}"}
        yield {**texts, "text": f"It is {'good' if good else 'bad'}", "label": "positive" if good else "negative"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An adapter, trained for two steps on a model that has a card."""
    folder = tmp_path_factory.mktemp("card")
    (base := folder / "base").mkdir()
    save_merged(base, random_decoder(shape=SMALL), STORED["float32"])
    hf = config_to_hf(SMALL, max_positions=512, tokens=dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")))
    quantised = {"quantization_config": {"quant_method": "fp8"}}  # in name; nothing of so small a model is
    (base / "config.json").write_text(json.dumps(hf | quantised))
    save_tokenizer(train_tokenizer(["Review: it is good or bad. Please focus on the sentiment."], 300), base)
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: kettle-1.0\nlanguage: en\n---\n# A base\n")
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    (folder / "reviews.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    given = {name: value for name, value in SMALLEST.items() if name.startswith("train.")}
    given |= {"model.pretrained": base, "lora.rank": 2, "optimizer.learning_rate": 0.1, "train.sequence_length": 512}
    given |= {"evaluation.examples": 4, "evaluation.splits": "[iid]", "evaluation.paraphrases": "[train]"}
    given |= {"task.name": "jsonl", "task.file": folder / "reviews.yaml", "run_dir": folder / "run"}
    given |= {"evaluation.paraphrases_each": 1, "evaluation.validation_examples": 4}
    assert not train.main([text for name, value in given.items() for text in (f"--{name}", str(value))])
    return folder / "run"


@pytest.fixture(scope="module")
def pushed(run):
    """The files of the repository after the whole model was pushed."""
    with stand_in.serving() as hub, pytest.MonkeyPatch.context() as patch:
        stand_in.use(patch, hub.address)
        patch.setenv("HF_TOKEN", stand_in.TOKEN)
        assert not push.main([str(run), "--to", "ann/whole", "--merged"])
    return hub.repositories["ann/whole"]


@pytest.fixture(scope="module")
def card(pushed):
    return pushed["README.md"].decode()


def test_the_card_of_a_base_that_came_quantised_says_so(card):
    assert ", which came quantised (fp8) and was read as plain weights\n- Trained: LoRA" in card


def front_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_library_is_that_of_what_is_uploaded(run, pushed, card):
    """A run's adapter may be merged into the model that is pushed."""
    assert {name for name in pushed if name.endswith(".safetensors")} == {"model.safetensors"}
    adapter = hub_card((run / "MODEL_CARD.md").read_text(), open_run(run), "ann/adapter", adapter=True)
    for text, library in ((card, "transformers"), (adapter, "peft")):
        assert front_of(text)["library_name"] == library
        assert f"from {library} import Auto" in text
        assert "base_model" not in front_of(text)  # a folder of this machine


def test_the_cards_code_asks_for_columns_of_any_name(pushed, card, tmp_path):
    """All of it is Python; what builds the prompt is run, without the model."""
    (tmp_path / "prompt.py").write_bytes(pushed["prompt.py"])
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(code, "README.md", "exec")
    asking = code[code.index("asked =") : code.index("ids =")]
    for column, text in ASKED.items():
        asking = asking.replace(f'{column!r}: "..."', f"{column!r}: {text!r}")
    exec(asking, space := {"hf_hub_download": lambda name, file: tmp_path / file})
    first = next(iter(space["asked"]["INSTRUCTIONS"].values()))
    assert space["prompt"].splitlines()[1:3] == ["Bought: yes. Say whether it is good. It is bad.", first]


def test_the_card_states_the_licence_of_its_base_and_no_other(run, card, tmp_path):
    front = front_of(card)
    assert (front["license"], front["license_name"], "language" in front) == ("other", "kettle-1.0", False)
    assert "That of the base model, as its card says: `kettle-1.0`." in card
    opened = open_run(run)
    cards = {
        "none": None,
        "silent": "---\nlanguage: en\n---\n",
        "broken": "---\nlicense: [\n---\n",
        "bare": "license: mit\n",
    }
    for name, text in cards.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "README.md").write_text(text)
    for base in (None, *(str(tmp_path / name) for name in cards)):
        other = replace(opened, model=replace(opened.model, pretrained=base))
        text = hub_card((run / "MODEL_CARD.md").read_text(), other, "ann/whole", adapter=False)
        assert "license" not in front_of(text)
        why = "no card of the base model was found that says one" if base else "the model was trained from scratch"
        assert f"\nNone is stated here: {why}." in text


def test_the_hub_reads_the_results_and_people_the_data(pushed, card):
    data = ModelCard(card).data
    rows = [json.loads(line) for line in pushed["focus_accuracy.jsonl"].decode().splitlines()]
    found = [(r.dataset_split, r.metric_name.split(",")[0], r.metric_value) for r in data.eval_results]
    assert found == [(row["split"], f"focus accuracy of {row['focus']}", round(row["accuracy"], 4)) for row in rows]
    assert (data.model_name, {r.dataset_name for r in data.eval_results}) == ("whole", {"reviews"})
    assert "- From: `reviews.jsonl`\n" in card
    assert re.search(r"\| train \| [1-9]\d* \| bought [01]\.\d{3} \| [0-9a-f]{32} \|\n", card)
