"""What a config comes to: the folders it names settle shapes and kinds, and the mesh must divide its batches."""

import json
import shutil
from dataclasses import replace
from itertools import product

import pytest
from jax.sharding import AbstractMesh

from fit_jax.config import Config, RehearsalConfig, TrainConfig, load_config
from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import save_tokenizer
from fit_jax.models.config import DecoderConfig
from fit_jax.parallel.config import AXES
from fit_jax.runs.evaluating import evaluate_run
from fit_jax.runs.resolve import check_mesh, resolve
from fit_jax.runs.run import load_model, set_up
from fit_jax.runs.run_folder import claimed, saved_config
from fit_jax.runs.trainer import Ending, train
from fit_jax.training.metrics import read_metrics

from ..stored_models import ADAPTER, SHAPE


def asked(model, *options: str) -> Config:
    return load_config(["--model.pretrained", str(model), *options])


@pytest.fixture
def configs_alone(imported, tmp_path):
    """The imported model without its weights."""
    return shutil.copytree(imported, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors*"))


def test_an_imported_model_is_known_from_its_config_alone(configs_alone):
    config = asked(configs_alone, "--model.width", "64", "--model.remat", "full", "--model.compute_dtype", "bfloat16")
    found = resolve(config)
    chosen = {"pretrained": str(configs_alone), "remat": "full", "compute_dtype": "bfloat16"}
    assert found.model == replace(SHAPE, **chosen)
    assert found.tokenizer.path == str(configs_alone)
    assert found.asked == config
    assert found.asked.model.width == 64
    assert resolve(replace(config, tokenizer=replace(config.tokenizer, path="own"))).tokenizer.path == "own"


def test_a_hugging_face_model_is_known_from_its_config_alone(tmp_path):
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"model_type": "llama", "intermediate_size": 96, "vocab_size": 80, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    found = resolve(asked(tmp_path, "--model.heads", "8"))
    assert (found.model.width, found.model.heads, found.model.kv_heads, found.model.vocab_size) == (64, 4, 2, 80)


def test_a_model_stored_in_few_bits_stays_so(configs_alone):
    path = configs_alone / "fit_jax_model.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"model": stored["model"] | {"quantize": "int8"}}))
    config = asked(configs_alone, "--lora.rank", "4")
    assert resolve(config).model.quantize == "int8"
    with pytest.raises(InputError, match=r"model\.quantize nf4: .* is stored as int8"):
        resolve(replace(config, model=replace(config.model, quantize="nf4")))
    with pytest.raises(InputError, match=r"cannot be fully fine-tuned; set lora\.rank"):
        resolve(asked(configs_alone))


def test_an_adapter_says_its_rank_targets_and_kind(configs_alone, adapter):
    options = ("--lora.adapter", str(adapter), "--lora.rank", "64", "--lora.dora", "true", "--lora.dropout", "0.2")
    assert resolve(asked(configs_alone, *options)).lora == replace(ADAPTER, adapter=str(adapter), dropout=0.2)


def test_the_vocabulary_holds_the_tokenizer():
    found = resolve(load_config(["--model.width", "32"]))
    assert found.model == found.asked.model
    assert found.tokenizer.path is None
    assert isinstance(found.decoder(100), DecoderConfig)
    assert found.decoder(100).vocab_size == 100
    small = resolve(load_config(["--model.vocab_size", "50"]))
    assert small.decoder(40).vocab_size == 50
    with pytest.raises(InputError, match=r"model\.vocab_size 50 is smaller than the tokenizer's 51"):
        small.decoder(51)


def test_a_model_on_the_hub_is_resolved_without_its_weights(configs_alone, monkeypatch):
    fetched = []

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str], ignore_patterns: list[str]):
        fetched.append((name, revision, allow_patterns, ignore_patterns))
        return str(configs_alone)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve(asked("owner/model")).model.width == SHAPE.width
    assert fetched == [("owner/model", None, ["config.json", "fit_jax_model.json"], ["*/*"])]


def test_what_is_missing_is_told(configs_alone, adapter, tmp_path):
    for config, message in (
        (load_config(["--lora.adapter", str(adapter)]), r"name that as model\.pretrained"),
        (asked(tmp_path / "none"), "there is no such path"),
        (asked(configs_alone, "--lora.adapter", str(tmp_path)), "holds no PEFT adapter"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            resolve(config)
        assert "\n" not in str(raised.value)


def test_a_mesh_takes_the_batches_it_divides_and_no_others():
    for data, fsdp, context, accumulate in product((1, 2, 3), (1, 2), (1, 2, 3), (1, 2)):
        mesh = AbstractMesh((data, fsdp, 5, context, 1), AXES)
        for rows, sequence_length in product((1, 2, 4, 6, 12), (8, 9, 12)):
            train = TrainConfig(batch_size=rows, accumulate=accumulate, sequence_length=sequence_length)
            config = Config(train=train)
            wrong = [
                name
                for name, left in (
                    ("train.batch_size", rows % (accumulate * data * fsdp)),
                    ("train.sequence_length", sequence_length % context),
                )
                if left
            ]
            if wrong:
                with pytest.raises(InputError, match=wrong[0]):
                    check_mesh(config, mesh)
            else:
                check_mesh(config, mesh)


def test_a_mesh_divides_the_rows_of_rehearsal_too():
    mesh = AbstractMesh((2, 1, 1, 1, 2), AXES)
    config = Config(train=TrainConfig(batch_size=8), rehearsal=RehearsalConfig(rows=6))
    assert config.rehearsal.rows_per_step == 0
    check_mesh(config, mesh)
    with pytest.raises(InputError, match=r"rehearsal.rows: 6 rows do not divide .* take a multiple of 4"):
        check_mesh(replace(config, rehearsal=RehearsalConfig(rows=6, files=("a.txt",))), mesh)


def test_a_run_goes_on_from_an_adapter_on_an_imported_model(imported, adapter, encoder, tmp_path):
    """Its rank comes from the adapter in training, after a restart, in evaluation and on the card.

    What it rehearses is held against the model below the adapter, and the report tells what tuning did to texts.
    """
    model = shutil.copytree(imported, tmp_path / "model")
    save_tokenizer(encoder.tokenizer, model)
    options = [
        "--run_dir",
        str(tmp_path / "run"),
        "--lora.adapter",
        str(adapter),
        "--train.steps",
        "1",
        "--focus.branches",
        "1",
    ]
    options += ["--task.train_examples", "16", "--task.validation_examples", "8", "--task.test_examples", "4"]
    options += ["--train.batch_size", "8", "--train.sequence_length", "280", "--train.validate_every", "null"]
    texts = [tmp_path / "rehearsed.jsonl", tmp_path / "other.txt"]
    texts[0].write_text("".join(json.dumps({"text": f"a lamp and {n} tents"}) + "\n" for n in range(99)))
    texts[1].write_text("it feels good.\n" * 50)
    options += ["--rehearsal.files", f"[{texts[0]}]", "--rehearsal.rows", "8", "--rehearsal.kl", "0.5"]
    options += ["--evaluation.texts", f"[{texts[1]}]"]
    config = asked(model, *options, "--evaluation.splits", "[iid]", "--evaluation.paraphrases", "[heldout]")
    for ending in (Ending.ALL_STEPS, Ending.ALREADY):
        with claimed(config):
            run = set_up(config, trains=True)
            assert train(run) is ending
    assert (run.lora.rank, run.config.lora.rank, run.model.width) == (ADAPTER.rank, 0, SHAPE.width)
    assert saved_config(tmp_path / "run") == config
    assert len(load_model(run, "last").params) == 2
    (record,) = read_metrics(run.folder / "metrics.jsonl")
    assert record["rehearsal_loss"] > record["rehearsal_kl"] >= 0
    evaluate_run(run, "last")
    lines = (run.folder / "report" / "perplexity.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines]
    assert [(m["texts"], m["rehearsed"]) for m in measured] == [("rehearsed.jsonl", True), ("other.txt", False)]
    assert all(1 < m["before"] != m["after"] > 1 for m in measured)
    assert "rehearsed.jsonl" in (run.folder / "report" / "summary.md").read_text()
    written = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (written["r"], written["target_modules"], written["use_rslora"]) == (3, ["q_proj", "down_proj"], True)
    assert "LoRA of rank 3, alpha 7" in (tmp_path / "run" / "MODEL_CARD.md").read_text()
