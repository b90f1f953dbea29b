"""Models imported and exported: what is written computes what was read, and a damaged file leaves nothing behind."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fit_jax
from fit_jax.conversion.convert import export_merged, import_model
from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import SamplingParams, generate
from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer, train_tokenizer
from fit_jax.models.config import ModelConfig
from fit_jax.models.model_folder import resolve_model
from fit_jax.models.weights import abstract_parameters, load_weights

from ..demo_run import SMALLEST
from ..models.hugging_face import packed_gpt_oss, stored_tensors

SIZE = 300  # of the packed model's vocabulary
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def test_the_real_model_tells_its_story(data_dir, tmp_path):
    import_model(str(data_dir / "stories260k" / "stories260K.bin"), tmp_path / "hf")
    model = resolve_model(ModelConfig(pretrained=str(tmp_path / "hf")))
    assert (model.layers, model.width, model.heads, model.kv_heads, model.vocab_size) == (5, 64, 8, 4, 512)
    graphdef, shapes = abstract_parameters(model)
    (made,) = generate(graphdef, (load_weights(model, shapes),), [np.array([1], np.int32)], SamplingParams(tokens=60))
    assert load_tokenizer(tmp_path / "hf").decode(made).strip().startswith(STORY)


def test_an_imported_model_exports_what_it_computes(data_dir, tmp_path):
    import_model(str(data_dir / "stories260k" / "stories260K.bin"), tmp_path / "hf")
    import_model(str(tmp_path / "hf"), tmp_path / "ours", quantize="int8")
    agreement = export_merged(str(tmp_path / "ours"), tmp_path / "back")
    assert agreement.largest < 1e-4 * agreement.scale
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["model_type"], config["eos_token_id"], config["dtype"]) == ("llama", 2, "float32")
    with pytest.raises(InputError, match="exists already"):
        import_model(str(tmp_path / "hf"), tmp_path / "ours")
    with pytest.raises(InputError, match="imported already"):
        import_model(str(tmp_path / "ours"), tmp_path / "again")


def test_weights_that_the_dtype_does_not_hold_are_told_and_leave_nothing(packed, tmp_path):
    """Here numbers beyond float16's range."""
    export_merged(str(packed), tmp_path / "plain", dtype="float32")
    (file,) = (tmp_path / "plain").glob("*.safetensors")
    tensors = load_file(file)
    tensors["lm_head.weight"][5] *= 1e7
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        InputError, match=r"plain16: the merged .* float16 does not hold its weights .*: choose dtype float32"
    ):
        export_merged(str(tmp_path / "plain"), tmp_path / "plain16", dtype="float16")
    assert [path.name for path in tmp_path.iterdir() if "16" in path.name] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "5 bytes are no llama2.c model"),
        (struct.pack("7i", 64, 172, 5, 7, 4, 512, 512), "header"),
        (struct.pack("7i", 64, 172, 5, 8, 4, 512, 512) + bytes(40), "holds 10 weights where its header asks for"),
    ],
)
def test_damaged_files_are_named_and_leave_nothing(content, message, tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_model(str(file), tmp_path / "hf")
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = packed_gpt_oss(tmp_path_factory.mktemp("gpt_oss"), vocab_size=SIZE, max_position_embeddings=1024)
    save_tokenizer(train_tokenizer(["Is the review good or bad? It is a very good one."], SIZE), folder)
    return folder


def kept(folder, before) -> bool:
    """Whether the folder's experts are those of the first one; the config says whether they are packed."""
    after, hf = stored_tensors(folder), json.loads((folder / "config.json").read_text())
    packed = {name: value for name, value in before.items() if name.endswith(("_blocks", "_scales"))}
    assert ("quantization_config" in hf) == (packed.keys() <= after.keys())
    if "quantization_config" not in hf:
        assert {value.dtype for value in after.values()} == {np.dtype(ml_dtypes.bfloat16)}
        return False
    return all(np.array_equal(value, after[name]) for name, value in packed.items())


def test_packed_experts_come_back_as_they_were(packed, tmp_path):
    export_merged(str(packed), tmp_path / "back")
    before, after = stored_tensors(packed), stored_tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name].view(np.uint8), after[name].view(np.uint8)) for name in before)
    assert kept(tmp_path / "back", before)


def test_an_imported_model_is_packed_no_more(packed, tmp_path):
    import_model(str(packed), tmp_path / "ours")
    agreement = export_merged(str(tmp_path / "ours"), tmp_path / "back")
    assert agreement.largest == 0
    assert not kept(tmp_path / "back", stored_tensors(packed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"lora.rank": 2}, True),
        ({}, False),
        ({"lora.rank": 2, "model.quantize": "int8"}, False),
        ({"lora.rank": 2, "lora.experts": True, "lora.dropout": 0.0}, False),
    ],
    ids=["adapter", "whole", "quantised", "experts"],
)
def test_a_run_keeps_the_experts_that_it_did_not_touch(packed, tmp_path, settings, same):
    mine = {name: value for name, value in SMALLEST.items() if name.startswith(("train.", "evaluation."))}
    base = {
        "model.pretrained": str(packed),
        "tokenizer.path": None,
        "train.sequence_length": 1024,
        "evaluation.examples": 4,
    }
    base |= {"optimizer.learning_rate": 0.1, "model.param_dtype": "bfloat16"}
    fit_jax.tune(tmp_path / "run", "demo", {**mine, **base, **settings})
    export_merged(str(tmp_path / "run"), tmp_path / "back")
    assert kept(tmp_path / "back", stored_tensors(packed)) == same
