"""Model files that are damaged: each is told in one line that names the file."""

import dataclasses
import json
import os

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.adapter_config import CONFIG, resolve_lora
from fit_jax.models.config import DecoderConfig, ModelConfig
from fit_jax.models.families import config_from_hf
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import OWN, open_pretrained
from fit_jax.models.tensor_files import INDEX, TensorFiles, write_tensors

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
        ({**LLAMA, "rope_scaling": 5}, "rope_scaling 5 is no object"),
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
    with pytest.raises(InputError, match="import the model again"):
        open_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", [name for name, value in LLAMA.items() if isinstance(value, int)])
@pytest.mark.parametrize("value", ["32", [32], {}, -1, 0, 1.5, True, 10**9, 10**18, float("nan")])
def test_every_size_is_a_whole_number_within_bounds(name, value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, name: value}))
    with pytest.raises(InputError, match=rf"config.json: {name} \S+ is no integer from 1 to \d+; fetch"):
        open_pretrained(str(tmp_path))


OPTIONAL = ("head_dim", "num_key_value_heads", "rms_norm_eps", "rope_theta", "query_pre_attn_scalar", "sliding_window")


@pytest.mark.parametrize("name", [*OPTIONAL, "attn_logit_softcapping", "rope_parameters", "tie_word_embeddings"])
@pytest.mark.parametrize("value", ["a", [1], -1, float("inf"), "1e9"])
def test_every_optional_field_is_typed(name, value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "model_type": "gemma2", "head_dim": 8, name: value}))
    with pytest.raises(InputError, match=f"config.json: {name} "):
        open_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value"),
    [("family", "foo"), ("param_dtype", "float8"), ("layers", 0), ("rope", 5), ("width", 1.5)],
)
def test_an_imported_model_with_wrong_values_is_told(field, value, tmp_path):
    model = dataclasses.asdict(DecoderConfig(vocab_size=300)) | {field: value}
    (tmp_path / OWN).write_text(json.dumps({"model": model, "hf": {}}))
    with pytest.raises(InputError, match=rf"{field}.*; import the model again"):
        open_pretrained(str(tmp_path))


@pytest.mark.parametrize("change", [{"layers": "2"}, {"norm_epsilon": "1e-5"}, {"rope": {"theta": "5"}}])
def test_an_imported_model_is_as_it_was_written(change, tmp_path):
    hf = {**LLAMA, "max_position_embeddings": 64}
    model = dataclasses.asdict(config_from_hf(hf, "config.json")) | {"quantize": "int8"}
    (tmp_path / OWN).write_text(json.dumps({"model": model, "hf": hf}))
    assert open_pretrained(str(tmp_path)).config.quantize == "int8"  # as the import chose
    ((name, value),) = change.items()
    model[name] = {**model[name], **value} if isinstance(value, dict) else value
    (tmp_path / OWN).write_text(json.dumps({"model": model, "hf": hf}))
    with pytest.raises(InputError, match=rf"{OWN}: model\.{name} .* is not what was imported; import the model again"):
        open_pretrained(str(tmp_path))
    (tmp_path / OWN).write_text(json.dumps({"model": model, "hf": hf | {"rope_theta": "x"}}))
    with pytest.raises(InputError, match=rf"{OWN}: hf: rope_theta 'x' is no number .*; import the model again"):
        open_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_ids_of_tokens_are_whole_numbers(name, tmp_path):
    for value in (2, -1, None, [2, 3]):
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA, name: value}))
        assert open_pretrained(str(tmp_path)).hf[name] == value
    for value in ("2", -2, 1.5, True, {}, 2**31, [2, "3"], [[2]]):
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA, name: value}))
        with pytest.raises(InputError, match=rf"config\.json: {name}(\[[01]\])? \S+ is no integer from -1"):
            open_pretrained(str(tmp_path))


@pytest.fixture
def shards(tmp_path):
    """A folder of two files with an index; beside the folder lies a file that is none of the model's."""
    folder = tmp_path / "model"
    folder.mkdir()
    layout = {name: ((2, 2), np.dtype(np.float32)) for name in "ab"}
    write_tensors(folder, layout, ((lambda: iter([np.ones((2, 2), np.float32)])) for _ in "ab"), most_bytes=1)
    (tmp_path / "x.safetensors").write_bytes(next(folder.glob("*.safetensors")).read_bytes())
    return folder


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "a/../../x.safetensors", "..", "x.bin", 5, ["x"], ""]
)
def test_an_index_names_files_of_its_own_folder_alone(shards, name):
    assert set(TensorFiles(shards).tensors) == {"a", "b"}
    index = json.loads((shards / INDEX).read_text())
    index["weight_map"]["a"] = str(shards.parent / name[1:]) if name == "/x.safetensors" else name
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"not the name of a .safetensors file in this folder"):
        TensorFiles(shards)


@pytest.mark.parametrize("content", ['{"weight_map": []}', '{"weight_map": "a"}', "[1]", "[" * 10**5, "{"])
def test_a_malformed_index_is_told(shards, content):
    (shards / INDEX).write_text(content)
    with pytest.raises(InputError, match=INDEX):
        TensorFiles(shards)


def test_a_pipe_is_no_weights(shards):
    (first, *_) = sorted(shards.glob("*.safetensors"))
    first.unlink()
    os.mkfifo(first)
    with pytest.raises(InputError, match="not a regular file"):
        TensorFiles(shards)


@pytest.mark.parametrize(
    ("field", "value"),
    [("r", 0), ("r", -1), ("r", "8"), ("r", 1.5), ("r", 10**9), ("r", None), ("lora_alpha", "a"), ("lora_alpha", None),
     ("lora_alpha", float("nan")), ("use_dora", "yes"), ("use_rslora", 1),
     ("peft_type", None), ("peft_type", "LOHA"), ("target_modules", 5), ("target_modules", ["q_proj", 5])],
)  # fmt: skip
def test_an_adapter_with_wrong_values_is_told(shards, field, value):
    peft = {"peft_type": "LORA", "r": 4, "lora_alpha": 8} | {field: value}
    (shards / CONFIG).write_text(json.dumps({k: v for k, v in peft.items() if v is not None}))
    layout = {f"x.q_proj.lora_{part}.weight": ((2, 2), np.dtype(np.float32)) for part in "AB"}
    for path in shards.glob("model*"):
        path.unlink()
    write_tensors(shards, layout, ((lambda: iter([np.ones((2, 2), np.float32)])) for _ in "AB"), most_bytes=100)
    with pytest.raises(InputError, match=rf"{CONFIG}: (lacks )?{field}"):
        resolve_lora(LoraConfig(adapter=str(shards)), ModelConfig())


def test_of_a_folder_with_a_long_name_the_end_is_shown(tmp_path):
    folder = tmp_path / ("deep" * 30) / ("folder" * 20)
    folder.mkdir(parents=True)
    for config, wrong in (
        ({**LLAMA, "num_hidden_layers": [None]}, r"config\.json: num_hidden_layers \[None\] is no integer"),
        ({**LLAMA, "max_position_embeddings": 0}, r"config\.json: max_position_embeddings 0 is no integer"),
        ({"model_type": "new"}, r"config\.json: model_type 'new' is not supported"),
    ):
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=wrong) as told:
            open_pretrained(str(folder), ("config.json", OWN))
        assert len(str(told.value).rpartition(";")[0]) <= 200


def test_no_longest_sequence_in_a_config_is_the_familys(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "max_position_embeddings": None}))
    assert open_pretrained(str(tmp_path), ("config.json", OWN)).config.layers == 2
