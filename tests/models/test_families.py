"""Every family against transformers: logits, greedy continuations, and round trips of tensors and configs."""

import dataclasses
import functools
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
from fit_jax.models.model_folder import resolve_model
from fit_jax.models.weights import abstract_parameters, load_weights

from ..closeness import assert_close
from .hugging_face import (
    FACTORS,
    FAMILIES,
    LATER,
    SHAPE,
    SLOW,
    hf_config,
    random_model,
    saved,
    stored_tensors,
    their_logits,
)

EARLY = [family for family in FAMILIES if family not in (*LATER, *SLOW)]


def slow(families):
    return [pytest.param(family, marks=pytest.mark.slow) for family in families]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """A family's model in transformers, the folder that it is saved in, and its resolved config."""

    @functools.cache
    def make(family):
        reference = random_model(family)
        folder = saved(reference, tmp_path_factory.mktemp(family), "bfloat16")
        return reference, folder, resolve_model(ModelConfig(pretrained=str(folder)))

    return make


@pytest.fixture(scope="module")
def loaded(model_of):
    """A family's model in transformers, and here its structure and parameters."""

    @functools.cache
    def make(family):
        reference, _, model = model_of(family)
        graphdef, shapes = abstract_parameters(model)
        return reference, graphdef, (load_weights(model, shapes),)

    return make


TOKENS = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (2, 20), np.int32)


@pytest.mark.parametrize("family", [*EARLY, *LATER, *slow(SLOW)])
def test_logits_equal_transformers(family, loaded):
    reference, graphdef, params = loaded(family)
    assert_close(probe_logits(graphdef, params, TOKENS), their_logits(reference, TOKENS), tolerance=1e-4)


# Their decoding compiles for long; in the others it differs by what the logits show.
GREEDY = ("llama", "gemma3", "mixtral")


@pytest.mark.parametrize("family", [*GREEDY, *slow(sorted({*EARLY, *LATER, *SLOW} - {*GREEDY}))])
def test_greedy_tokens_equal_transformers(family, loaded):
    import torch

    reference, graphdef, params = loaded(family)
    prompts = TOKENS[:, :5]
    reference.generation_config.eos_token_id = None
    ids = torch.from_numpy(prompts.astype(np.int64))
    theirs = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=0
    )[:, 5:]
    ours = generate(graphdef, params, list(prompts), SamplingParams(tokens=64))
    np.testing.assert_array_equal(np.stack(ours), theirs.numpy())


@pytest.mark.parametrize("family", [*EARLY, "phi4_mini", *slow(sorted({*LATER, *SLOW} - {"phi4_mini"}))])
def test_tensors_come_back_bit_for_bit_in_their_own_dtype(family, model_of, loaded, tmp_path):
    _, folder, _ = model_of(family)
    _, graphdef, params = loaded(family)
    decoder = nnx.merge(graphdef, *params)
    save_merged(tmp_path, decoder, np.dtype(ml_dtypes.bfloat16), file_bytes=30_000)
    before, after = stored_tensors(folder), stored_tensors(tmp_path)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(value.view(np.uint16), after[name].view(np.uint16))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(after)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_written_reads_back_here_and_in_transformers(family, tmp_path):
    from transformers import AutoConfig

    theirs = hf_config(family)
    ours = config_from_hf(theirs.to_dict(), "config.json")
    written = config_to_hf(ours, max_positions=256, tokens={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None})
    assert config_from_hf(written, "config.json") == ours
    (tmp_path / "config.json").write_text(json.dumps(written))
    again = AutoConfig.from_pretrained(tmp_path)
    assert config_from_hf(again.to_dict(), "config.json") == ours
    names = ["layer_types", "sliding_window", "tie_word_embeddings", "head_dim", "hidden_size", "no_rope_layers"]
    names += ["per_layer_config", "num_kv_shared_layers", "use_double_wide_mlp"]
    if ours.rope.kind not in (
        "yarn",
        "longrope",
    ):  # whose factor on cosines may follow from others, and is then written
        names.append("rope_parameters")
    for name in names:
        assert again.to_dict().get(name) == theirs.to_dict().get(name), name


@pytest.mark.parametrize("family", get_args(Family))
def test_the_longest_text_is_what_the_config_says_or_transformers_default(family):
    from transformers import AutoConfig

    assert position_limit(family, {"max_position_embeddings": 100}) == 100
    assert position_limit(family, {}) == AutoConfig.for_model(family).max_position_embeddings


LLAMA = {"model_type": "llama", **SHAPE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, r"model_type 'gpt2' is not supported: .*; supported: llama, mistral"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "lacks short_factor or long_factor"),
        ({"rope_scaling": {"rope_type": "longrope", **FACTORS, "long_factor": [1.0]}}, "there are 1 for 6 pairs"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not what LlamaForCausalLM has"),
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


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("jetmoe", {"num_local_experts": 8}, "lacks its mixture of experts; the nearest that it has is llama;"),
        ("qwen2_moe", {"num_experts": 8}, "lacks its mixture of experts; the nearest that it has is qwen3_moe;"),
        (
            "gemma3n_text",
            {"altup_num_inputs": 4, "num_kv_shared_layers": 2},
            "lacks several residual streams; the nearest that it has is gemma3_text;",
        ),
        (
            "kimi_linear",
            {"linear_num_value_heads": 8},
            "lacks its state-space or linear-attention layers; the nearest that it has is",
        ),
        ("deepseek_v3", {"kv_lora_rank": 8}, "lacks latent attention; the nearest that it has is llama;"),
        (
            "mistral3",
            {"vision_config": {"depth": 1}, "text_config": {"model_type": "ministral3"}},
            "lacks other inputs than text; the nearest that it has is ministral3;",
        ),
        ("glm4", {}, "may lack what its layers compute; the nearest that it has is"),
    ],
)
def test_an_unknown_family_says_what_is_lacking_and_what_is_near(family, change, message):
    with pytest.raises(InputError, match=message) as error:
        config_from_hf({**LLAMA, **change, "model_type": family}, "config.json")
    assert "\n" not in str(error.value)


# A field that is read of each family, besides those of all, and what its values never are.
FIELDS = {
    "smollm3": ("no_rope_layers", "no_rope_layer_interval", "use_sliding_window"),
    "olmo3": ("sliding_window", "layer_types", "rope_parameters"),
    "phi3": ("partial_rotary_factor", "sliding_window"),
    "granite": ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"),
    "ministral3": ("rope_scaling", "rope_parameters", "sliding_window"),
    "olmoe": ("num_experts", "num_experts_per_tok", "norm_topk_prob", "clip_qkv"),
    "gpt_oss": (
        "num_local_experts", "num_experts_per_tok", "swiglu_alpha", "swiglu_limit", "attention_bias", "layer_types",
        "quantization_config",
    ),
    "gemma4_text": (
        "head_dim", "global_head_dim", "attention_k_eq_v", "num_kv_shared_layers", "hidden_size_per_layer_input",
        "vocab_size_per_layer_input", "enable_moe_block", "per_layer_config", "final_logit_softcapping", "layer_types",
        "rope_parameters", "sliding_window",
    ),
    "mixtral": ("num_local_experts", "num_experts_per_tok", "sliding_window"),
    "qwen3_5_text": (
        "layer_types", "full_attention_interval", "linear_num_key_heads", "linear_num_value_heads",
        "linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim", "partial_rotary_factor",
    ),
    "qwen3_5_moe_text": (
        "layer_types", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size",
        "linear_num_key_heads", "linear_conv_kernel_dim", "partial_rotary_factor",
    ),
    "qwen3_next": (
        "layer_types", "full_attention_interval", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
        "shared_expert_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers",
        "linear_num_value_heads", "partial_rotary_factor",
    ),
    "qwen3_moe": ("num_experts", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"),
}  # fmt: skip


@pytest.mark.parametrize(("family", "name"), [(family, name) for family, names in FIELDS.items() for name in names])
@pytest.mark.parametrize("value", ["a", [2.5], -1, float("inf"), {"rope_type": 5}])
def test_every_field_of_a_family_is_typed(family, name, value):
    with pytest.raises(InputError, match=r"config\.json: ") as error:
        config_from_hf({**LLAMA, "model_type": family, name: value}, "config.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"factor": "a"}, {"beta_fast": []}, {"beta_slow": -1}, {"truncate": 1}, {"attention_factor": "1"},
        {"mscale": [1]}, {"llama_4_scaling_beta": -1}, {"original_max_position_embeddings": 0.5},
        {"rope_type": "longrope", "short_factor": 1, "long_factor": [1.0]},
        {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": ["a"] * 6},
    ],
)  # fmt: skip
def test_every_field_of_a_scaled_rope_is_typed(change):
    with pytest.raises(InputError, match=r"config\.json: rope_scaling"):
        config_from_hf({**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 2.0, **change}}, "config.json")
