"""Model files that are damaged: each is told in one line that names the file."""

import json

import pytest

from fit_jax.errors import InputError
from fit_jax.models.llama2c import convert
from fit_jax.models.weights import OWN, open_pretrained

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "not an object"),
        ({**LLAMA, "model_type": ["llama"]}, "model_type"),
        ({**LLAMA, "hidden_size": "a"}, "hidden_size"),
        ({**LLAMA, "num_attention_heads": 0}, "num_attention_heads"),
        ({**LLAMA, "rope_scaling": 5}, "RoPE"),
        ({**LLAMA, "rope_scaling": {"rope_type": "linear"}}, "factor"),
    ],
)
def test_a_malformed_config_is_told(content, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        open_pretrained(str(tmp_path))


@pytest.mark.parametrize("content", [{}, {"model": {"rope": {}, "colour": 1, "sliding_layers": None}, "hf": {}}])
def test_an_imported_model_of_another_version_is_told(content, tmp_path):
    (tmp_path / OWN).write_text(json.dumps(content))
    with pytest.raises(InputError, match="import the model anew"):
        open_pretrained(str(tmp_path))


@pytest.mark.parametrize("size", [0, 3, 31])
def test_a_llama2c_file_of_impossible_size_is_told(size, tmp_path):
    (tmp_path / "model.bin").write_bytes(bytes(size))
    with pytest.raises(InputError, match=f"{size} bytes"):
        convert(tmp_path / "model.bin", tmp_path)
