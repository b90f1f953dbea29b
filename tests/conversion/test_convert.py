"""Models imported and exported: what is written computes what was read, and a damaged file leaves nothing behind."""

import json
import struct

import numpy as np
import pytest

from fit_jax.conversion.convert import export_merged, import_model
from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import SamplingParams, generate
from fit_jax.focus.tokenizers import load_tokenizer
from fit_jax.models.config import ModelConfig
from fit_jax.models.model_folder import resolve
from fit_jax.models.weights import abstract_parameters, load_weights

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."


def test_the_real_model_tells_its_story(data_dir, tmp_path):
    import_model(str(data_dir / "stories260k" / "stories260K.bin"), tmp_path / "hf")
    model = resolve(ModelConfig(pretrained=str(tmp_path / "hf")))
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
