"""Checkpoints with other encoders beside a text model: the text is loaded and handed back, the rest is named."""

import json

import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from fit_jax.conversion.parity import probe_logits
from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.models.export import save_merged
from fit_jax.models.families import config_from_hf, text_name, text_of
from fit_jax.models.model_folder import open_pretrained, resolve_model
from fit_jax.models.weights import abstract_parameters, load_weights

from ...closeness import assert_close
from ..hugging_face import GEMMA, MINISTRAL3, QWEN35, QWEN35_MOE, SHAPE, draw, saved, stored_tensors, their_logits

PIXTRAL = {"model_type": "pixtral", "num_attention_heads": 2, "head_dim": 8, "image_size": 16, "patch_size": 8}
SIGLIP = {"model_type": "siglip_vision_model", "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
TEXT = {**SHAPE, "num_hidden_layers": 2}
WHOLE = {
    "qwen3_5": (
        "Qwen3_5",
        {**TEXT, **QWEN35, "model_type": "qwen3_5_text", "num_hidden_layers": 2, "full_attention_interval": 2},
        {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32},
    ),
    "qwen3_5_moe": (
        "Qwen3_5Moe",
        {**TEXT, **QWEN35_MOE, "model_type": "qwen3_5_moe_text", "num_hidden_layers": 2},
        {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 48},
    ),
    "mistral3": (
        "Mistral3",
        {**TEXT, "model_type": "ministral3", "head_dim": 20, "rope_parameters": MINISTRAL3, "pad_token_id": 0},
        {**PIXTRAL, **SMALL},
    ),
    "gemma3": ("Gemma3", {**TEXT, **GEMMA, "model_type": "gemma3_text"}, {**SIGLIP, **SMALL}),
}


@pytest.mark.parametrize(
    "kind", ["mistral3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gemma3", "qwen3_5", "qwen3_5_moe"))]
)
def test_the_text_computes_and_comes_back_as_it_was(kind, tmp_path):
    import transformers

    name, text, vision = WHOLE[kind]
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config=vision, tie_word_embeddings=False, attn_implementation="eager"
    )
    config.text_config.tie_word_embeddings = False
    reference = draw(getattr(transformers, f"{name}ForConditionalGeneration")(config).eval())
    folder = saved(reference, tmp_path / "whole", "bfloat16")
    assert open_pretrained(str(folder)).left_out == ("vision",)

    model = resolve_model(ModelConfig(pretrained=str(folder)))
    graphdef, shapes = abstract_parameters(model)
    params = (load_weights(model, shapes),)
    tokens = np.random.default_rng(0).integers(11, SHAPE["vocab_size"], (2, 12), np.int32)
    assert_close(probe_logits(graphdef, params, tokens), their_logits(reference, tokens), tolerance=1e-4)

    alone = tmp_path / "text"
    alone.mkdir()
    save_merged(alone, nnx.merge(graphdef, *params), np.dtype(ml_dtypes.bfloat16))
    before = {text_name(name): value for name, value in stored_tensors(folder).items() if text_name(name)}
    after = stored_tensors(alone)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value.view(np.uint16), after[name].view(np.uint16))
    (alone / "config.json").write_text(json.dumps(open_pretrained(str(folder)).hf))
    again = transformers.AutoModelForCausalLM.from_pretrained(alone, dtype="float32", attn_implementation="eager")
    assert_close(their_logits(again, tokens), their_logits(reference, tokens), tolerance=1e-5)


def test_what_the_text_says_goes_before_what_the_whole_says():
    text = {**TEXT, "model_type": "mistral", "sliding_window": None, "tie_word_embeddings": None, "eos_token_id": 2}
    whole = {
        "model_type": "mistral3",
        "eos_token_id": 9,
        "tie_word_embeddings": True,
        "id2label": {},
        "text_config": text,
    }
    part = text_of({**whole, "vision_config": PIXTRAL, "audio_config": {}}, "config.json")
    assert part.left_out == ("audio", "vision")
    assert (part.hf["eos_token_id"], part.hf["architectures"]) == (2, ["MistralForCausalLM"])
    config = config_from_hf(part.hf, "config.json")
    assert (config.family, config.window, config.tied) == ("mistral", None, True)


def test_a_text_of_an_unknown_family_and_a_section_that_is_none_are_told():
    whole = {"model_type": "mistral3", "vision_config": {}, "text_config": {"model_type": "unheard"}}
    with pytest.raises(InputError, match=r"model_type 'mistral3' is not supported: .* other inputs than text"):
        config_from_hf(text_of(whole, "config.json").hf, "config.json")
    with pytest.raises(InputError, match=r"config\.json: text_config 5 is no object of fields"):
        text_of({**whole, "text_config": 5}, "config.json")
