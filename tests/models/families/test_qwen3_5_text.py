"""Qwen 3.5's config, what is refused of it, and what published files hold besides."""

import dataclasses
import json

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.models.families import config_from_hf, text_of
from fit_jax.models.linear_config import LinearConfig
from fit_jax.models.model_folder import resolve_model, unlike_family
from fit_jax.models.weights import abstract_parameters, load_weights

from ..hugging_face import QWEN35, SHAPE, hf_config, random_model, rewrite, saved

DENSE = {"model_type": "qwen3_5_text", **SHAPE, **QWEN35}


def read(**changes):
    return config_from_hf({**DENSE, **changes}, "config.json")


def test_every_fourth_layer_attends_unless_the_config_says_which():
    assert read().linear.layers == (0, 1, 2, 4, 5)
    assert read(full_attention_interval=2).linear.layers == (0, 2, 4)
    kinds = ["full_attention", *["linear_attention"] * 5]
    assert read(layer_types=kinds, full_attention_interval=2).linear.layers == (1, 2, 3, 4, 5)
    assert read(layer_types=["full_attention"] * 6).linear == LinearConfig()


def test_the_rotary_embedding_turns_a_quarter_and_its_sections_change_no_text():
    sections = {"mrope_section": [1, 1, 0], "mrope_interleaved": True}
    rope = {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25}
    assert read(rope_parameters={**rope, **sections}) == read(rope_parameters=rope)
    assert (read(rope_parameters=rope).rope.theta, read().rope.partial) == (1e7, 0.25)
    assert read(rope_parameters={**rope, "partial_rotary_factor": 0.5}).rope.partial == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["linear_attention"] * 5}, "is no list of 6 of full_attention and linear_attention"),
        ({"layer_types": ["linear_attention"] * 5 + ["sliding_attention"]}, "is no list of 6 of full_attention"),
        ({"linear_num_key_heads": 0.5}, "linear_num_key_heads 0.5 is no integer"),
        ({"linear_num_value_heads": -4}, "linear_num_value_heads -4 is no integer from 1"),
        ({"linear_num_value_heads": 3}, "3 heads do not divide into 2 key heads"),
        ({"linear_key_head_dim": "12"}, "linear_key_head_dim '12' is no integer"),
        ({"linear_conv_kernel_dim": 1 << 20}, "linear_conv_kernel_dim 1048576 is no integer from 1 to 256"),
        ({"full_attention_interval": 0}, "full_attention_interval 0 is no integer from 1"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "not what qwen3_5_text has"),
    ],
)
def test_what_it_is_not_is_told_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        read(**change)
    assert "\n" not in str(error.value)


def test_a_model_of_such_layers_is_exported_as_one_of_this_family_alone():
    assert unlike_family(read()) is None
    assert "model.output_gate False, not True" in str(unlike_family(dataclasses.replace(read(), family="llama")))


def test_layers_that_predict_further_tokens_are_left_out_and_named(tmp_path):
    folder = saved(random_model("qwen3_5"), tmp_path / "model")
    rewrite(folder, lambda tensors: tensors.update({"mtp.fc.weight": np.ones((2, 2)), "mtp.norm.weight": np.ones(2)}))
    model = resolve_model(ModelConfig(pretrained=str(folder)))
    load_weights(model, abstract_parameters(model)[1])
    rewrite(folder, lambda tensors: tensors.update({"model.mtp.weight": np.ones(2)}))
    with pytest.raises(InputError, match=r"unused: model\.mtp\.weight"):
        load_weights(model, abstract_parameters(model)[1])

    text = json.loads(json.dumps(hf_config("qwen3_5").to_dict()))
    whole = {
        "model_type": "qwen3_5",
        "text_config": {**text, "mtp_num_hidden_layers": 1},
        "vision_config": {"depth": 1},
    }
    part = text_of(whole, "config.json")
    assert part.left_out == ("vision", "layers that predict further tokens")
    assert part.hf["architectures"] == ["Qwen3_5ForCausalLM"]
    assert config_from_hf(part.hf, "config.json") == config_from_hf(text, "config.json")
