"""Every family against transformers: logits, greedy continuations, and round trips of tensors and configs."""

import dataclasses
import json
from typing import get_args

import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from fit_jax.conversion.parity import probe_logits
from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import SamplingParams, generate
from fit_jax.models.config import Family, ModelConfig
from fit_jax.models.export import save_merged
from fit_jax.models.families import config_from_hf, config_to_hf, position_limit
from fit_jax.models.weights import abstract_parameters, load_weights, resolve

from ..closeness import assert_close
from .hugging_face import FAMILIES, SHAPE, random_model, saved, stored_tensors, their_logits


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_tokens_equal_transformers(family, tmp_path):
    import torch

    reference = random_model(family)
    model = resolve(ModelConfig(pretrained=str(saved(reference, tmp_path / "hf"))))
    graphdef, shapes = abstract_parameters(model)
    params = (load_weights(model, shapes),)
    tokens = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (2, 20), np.int32)
    assert_close(probe_logits(graphdef, params, tokens), their_logits(reference, tokens), tolerance=1e-4)

    prompts = tokens[:, :5]
    reference.generation_config.eos_token_id = None
    ids = torch.from_numpy(prompts.astype(np.int64))
    theirs = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=0
    )[:, 5:]
    ours = generate(graphdef, params, list(prompts), SamplingParams(tokens=64))
    np.testing.assert_array_equal(np.stack(ours), theirs.numpy())


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_come_back_bit_for_bit_in_their_own_dtype(family, tmp_path):
    folder = saved(random_model(family), tmp_path / "hf", "bfloat16")
    model = resolve(ModelConfig(pretrained=str(folder)))
    graphdef, shapes = abstract_parameters(model)
    (tmp_path / "back").mkdir()
    decoder = nnx.merge(graphdef, load_weights(model, shapes))
    save_merged(tmp_path / "back", decoder, np.dtype(ml_dtypes.bfloat16), file_bytes=30_000)
    before, after = stored_tensors(folder), stored_tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(value.view(np.uint16), after[name].view(np.uint16))
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(after)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_written_reads_back_here_and_in_transformers(family, tmp_path):
    from transformers import AutoConfig

    theirs = random_model(family).config
    ours = config_from_hf(theirs.to_dict(), "config.json")
    written = config_to_hf(ours, max_positions=256, tokens={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None})
    assert config_from_hf(written, "config.json") == ours
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = AutoConfig.from_pretrained(tmp_path)
    assert config_from_hf(again.to_dict(), "config.json") == ours
    names = ("rope_parameters", "layer_types", "sliding_window", "tie_word_embeddings", "head_dim", "hidden_size")
    for name in names:
        assert getattr(again, name, None) == getattr(theirs, name, None), name


@pytest.mark.parametrize("family", get_args(Family))
def test_the_longest_text_is_what_the_config_says_or_transformers_default(family):
    from transformers import AutoConfig

    assert position_limit(family, {"max_position_embeddings": 100}) == 100
    assert position_limit(family, {}) == AutoConfig.for_model(family).max_position_embeddings


LLAMA = {"model_type": "llama", **SHAPE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported: llama, mistral"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type 'yarn'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_what_the_decoder_cannot_do_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        config_from_hf(LLAMA | change, "config.json")


def test_configs_of_earlier_transformers_are_read():
    scaling = {"type": "linear", "factor": 2.0}
    model = config_from_hf(LLAMA | {"rope_theta": 5e5, "rope_scaling": scaling, "hidden_act": "silu"}, "config.json")
    assert dataclasses.astuple(model.rope)[:3] == (5e5, "linear", 2.0)
    v03 = {"model_type": "mistral", **SHAPE, "sliding_window": None, "rope_theta": 1e6}
    assert config_from_hf(v03, "config.json").window is None
