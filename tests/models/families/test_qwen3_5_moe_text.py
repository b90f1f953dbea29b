"""Qwen 3.5's mixtures and Qwen3-Next: configs, what is refused of them, and whole checkpoints."""

import dataclasses
import json

import pytest

from fit_jax.errors import InputError
from fit_jax.models.families import config_from_hf, text_of
from fit_jax.models.linear_config import LinearConfig

from ..hugging_face import QWEN35_MOE, SHAPE, hf_config

MIXTURE = {"model_type": "qwen3_5_moe_text", **SHAPE, **QWEN35_MOE}


def read(**changes):
    return config_from_hf({**MIXTURE, **changes}, "config.json")


@pytest.mark.parametrize("family", ["qwen3_5_moe_text", "qwen3_next"])
def test_a_config_that_says_little_is_of_the_shape_that_transformers_gives_it(family):
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(family)
    told = {name: getattr(theirs, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    ours = config_from_hf({"model_type": family, "vocab_size": theirs.vocab_size, **told}, "config.json")
    assert ours == config_from_hf(theirs.to_dict(), "config.json")
    assert (ours.experts, ours.experts_per_token) == (theirs.num_experts, theirs.num_experts_per_tok)
    assert (ours.feed_forward, ours.expert_width, ours.rope.partial) == (512, 512, 0.25)
    assert ours.linear.by_head == (family == "qwen3_next")


def test_the_width_of_a_feed_forward_part_that_no_layer_has_changes_nothing():
    assert read(intermediate_size=7) == read()
    assert read(model_type="qwen3_next", intermediate_size=7) == read(model_type="qwen3_next")


def test_without_layers_that_keep_a_state_there_is_nothing_by_head():
    assert read(model_type="qwen3_next", layer_types=["full_attention"] * 4).linear == LinearConfig()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok 6 is no integer from 1 to 5"),
        ({"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size 0 is no integer from 1"),
        ({"model_type": "qwen3_next", "decoder_sparse_step": 2}, "every layer must have experts"),
        ({"model_type": "qwen3_next", "mlp_only_layers": [1]}, "every layer must have experts"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
    ],
)
def test_what_it_is_not_is_told_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        read(**change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": 0}, r"model\.shared_expert: there are no experts"),
        ({"expert_width": None}, r"model\.shared_expert"),
    ],
)
def test_a_shared_expert_stands_beside_others(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(read(), **changes).check()


def test_the_text_of_a_whole_checkpoint_is_taken():
    text = json.loads(json.dumps(hf_config("qwen3_5_moe").to_dict()))
    whole = {"model_type": "qwen3_5_moe", "text_config": {**text, "mtp_num_hidden_layers": 1}, "vision_config": {}}
    part = text_of(whole, "config.json")
    assert part.left_out == ("vision", "layers that predict further tokens")
    assert part.hf["architectures"] == ["Qwen3_5MoeForCausalLM"]
    assert config_from_hf(part.hf, "config.json") == config_from_hf(text, "config.json")
