"""Gemma 4's config in its two forms, what is refused of it, and files as they are published."""

import json

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.models.families import config_from_hf, text_of
from fit_jax.models.model_folder import resolve_model
from fit_jax.models.weights import abstract_parameters, load_weights

from ..hugging_face import FAMILIES, GEMMA4, SHAPE, hf_config, random_model, rewrite, saved

DENSE = {"model_type": "gemma4_text", **SHAPE, **GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1}


def read(**changes):
    return config_from_hf({**DENSE, **changes}, "config.json")


def test_heads_told_layer_by_layer_are_those_told_for_all_full_layers():
    by_layer = {str(layer): {"head_dim": 16, "num_key_value_heads": 1} for layer in (1, 3, 5)}
    assert read(per_layer_config=by_layer, global_head_dim=20, num_global_key_value_heads=2) == read()
    assert (read().full_head_dim, read().full_kv_heads, read().head_width) == (16, 1, 8)
    alike = read(global_head_dim=8, num_global_key_value_heads=None)
    assert (alike.full_head_dim, alike.full_kv_heads) == (None, None)


def test_the_last_layer_is_full_as_in_transformers():
    kinds = ["full_attention", *["sliding_attention"] * 5]
    ours = read(layer_types=kinds, num_hidden_layers=6)
    assert ours.sliding_layers == (1, 2, 3, 4)
    assert read(layer_types=["sliding_attention"], num_hidden_layers=1).window is None
    assert read(layer_types=None).sliding_layers == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_layer_config": {"1": {"head_dim": 16}, "3": {"head_dim": 12}}}, "the same for all full layers"),
        ({"per_layer_config": {"0": {"head_dim": 16}}}, "none for others"),
        ({"per_layer_config": {str(n): {"rms_norm_eps": 1.0} for n in (1, 3, 5)}}, "which alone may differ"),
        (
            {"per_layer_config": {str(n): {"num_key_value_heads": 1} for n in (1, 3, 5)}, "attention_k_eq_v": False},
            "without attention_k_eq_v",
        ),
        ({"num_kv_shared_layers": 6}, "sharing_layers: 6 of 6 layers"),
        ({"num_kv_shared_layers": 5}, "none before them does so"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention 'all' is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"enable_moe_block": True}, "lacks num_experts"),
        ({"enable_moe_block": True, "num_experts": 4, "top_k_experts": 5}, "top_k_experts 5"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type 'yarn' is not supported"),
    ],
)
def test_what_it_is_not_is_told_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        read(**change)
    assert "\n" not in str(error.value)


def test_attention_both_ways_among_images_alone_changes_no_text():
    assert read(use_bidirectional_attention="vision") == read()


def test_keys_that_published_files_hold_of_sharing_layers_are_left(tmp_path):
    folder = saved(random_model("gemma4_e2b"), tmp_path / "model")

    def publish(tensors):
        for layer in (3, 4, 5):
            for name in ("k_proj", "v_proj", "k_norm", "v_norm"):
                tensors[f"model.layers.{layer}.self_attn.{name}.weight"] = np.ones((2, 2), np.float32)

    rewrite(folder, publish)
    model = resolve_model(ModelConfig(pretrained=str(folder)))
    load_weights(model, abstract_parameters(model)[1])
    rewrite(folder, lambda tensors: tensors.update({"model.layers.2.self_attn.v_norm.weight": np.ones(8)}))
    with pytest.raises(InputError, match=r"unused: model\.layers\.2\.self_attn\.v_norm\.weight"):
        load_weights(model, abstract_parameters(model)[1])


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.startswith("gemma4")])
def test_the_text_of_a_whole_checkpoint_is_taken(family):
    text = json.loads(json.dumps(hf_config(family).to_dict()))
    whole = {"model_type": "gemma4", "text_config": text, "vision_config": {"depth": 1}, "audio_config": None}
    part = text_of(whole, "config.json")
    assert part.left_out == ("vision",)
    assert part.hf["architectures"] == ["Gemma4ForCausalLM"]
    assert config_from_hf(part.hf, "config.json") == config_from_hf(text, "config.json")
