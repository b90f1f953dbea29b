"""Tiny random models of every family, made with transformers from that family's own config class."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
MINISTRAL3 = {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7, "llama_4_scaling_beta": 0.3}
MINISTRAL3 |= {"original_max_position_embeddings": 16, "beta_fast": 0.5, "beta_slow": 0.1}
FACTORS = {"short_factor": [1.0, 1.1, 1.3, 1.5, 1.9, 2.5], "long_factor": [1.0, 1.5, 2.0, 4.0, 6.0, 9.0]}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS}
GRANITE = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.4,
    "logits_scaling": 8.0,
    "tie_word_embeddings": True,
}
GPT_OSS = {
    "head_dim": 20,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 6,
    "swiglu_limit": 1.5,
    "rope_parameters": {**YARN, "truncate": False},
}
GEMMA4 = {"hidden_size": 32, "num_hidden_layers": 6, "head_dim": 8, "global_head_dim": 16, "sliding_window": 6}
GEMMA4 |= {"layer_types": ["sliding_attention", "full_attention"] * 3, "hidden_size_per_layer_input": 0}
GEMMA4_E2B = {**GEMMA4, "hidden_size_per_layer_input": 12, "vocab_size_per_layer_input": 128}
GEMMA4_E2B |= {"num_kv_shared_layers": 3, "use_double_wide_mlp": True}
GEMMA4_MOE = {**GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1, "num_hidden_layers": 4}
GEMMA4_MOE |= {"enable_moe_block": True, "num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 24}
GEMMA4_MOE |= {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
# The norm of what its states give, which may be little, magnifies rounding there as here; so epsilon is large.
QWEN35 = {"hidden_size": 32, "num_hidden_layers": 6, "head_dim": 16, "linear_num_key_heads": 2}
QWEN35 |= {"linear_num_value_heads": 4, "linear_key_head_dim": 12, "linear_value_head_dim": 10}
QWEN35 |= {"rms_norm_eps": 1e-3}
QWEN35_MOE = {**QWEN35, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
QWEN35_MOE |= {"shared_expert_intermediate_size": 20, "num_hidden_layers": 4, "full_attention_interval": 2}
del QWEN35_MOE["hidden_size"]
GEMMA = {"head_dim": 20, "sliding_window": 6, "query_pre_attn_scalar": 32}

# Name of the config class, and its fields besides `SHAPE`.
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "llama_mha_tied": ("LlamaConfig", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama_mqa_wide_heads": ("LlamaConfig", {"num_key_value_heads": 1, "head_dim": 20}),
    "llama31": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama_linear": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "mistral": ("MistralConfig", {"sliding_window": 7}),
    "qwen2": ("Qwen2Config", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
    "qwen3": ("Qwen3Config", {"head_dim": 24, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2Config", GEMMA),
    "gemma3": ("Gemma3TextConfig", {**GEMMA, "_sliding_window_pattern": 3}),
    "gemma4": (
        "Gemma4TextConfig",
        {
            **GEMMA4,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "final_logit_softcapping": 3.0,
            "layer_types": [*["sliding_attention"] * 2, "full_attention"] * 2,
        },
    ),
    "gemma4_e2b": ("Gemma4TextConfig", GEMMA4_E2B),
    "gemma4_moe": ("Gemma4TextConfig", GEMMA4_MOE),
    "llama_yarn": ("LlamaConfig", {"rope_parameters": {**YARN, "attention_factor": 1.3, "truncate": False}}),
    "qwen3_yarn": ("Qwen3Config", {"head_dim": 24, "rope_parameters": YARN}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2, "pad_token_id": 0}),
    "smollm3_sliding": (
        "SmolLM3Config",
        {"no_rope_layers": [0, 1, 0], "use_sliding_window": True, "sliding_window": 6, "pad_token_id": 0},
    ),
    "olmo2": ("Olmo2Config", {}),
    "olmo3": (
        "Olmo3Config",
        {
            "num_hidden_layers": 4,
            "sliding_window": 6,
            "rope_parameters": {
                "full_attention": {**YARN, "rope_theta": 5e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "phi3": ("Phi3Config", {"sliding_window": 7, "pad_token_id": 0}),
    "phi3_short": (
        "Phi3Config",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 70, "pad_token_id": 0},
    ),
    "phi4_mini": (
        "Phi3Config",
        {
            "hidden_size": 64,
            "rope_parameters": {**LONGROPE, "partial_rotary_factor": 0.75},
            "original_max_position_embeddings": 4,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
        },
    ),
    "granite": ("GraniteConfig", GRANITE),
    "ministral": (
        "MinistralConfig",
        {
            "head_dim": 24,
            "sliding_window": 6,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        },
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}),
    "olmoe": (
        "OlmoeConfig",
        {"num_experts": 5, "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 1},
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"head_dim": 24, "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40},
    ),
    "qwen3_moe_normalized": (
        "Qwen3MoeConfig",
        {"head_dim": 24, "num_experts": 6, "moe_intermediate_size": 40, "norm_topk_prob": True}
        | {"num_experts_per_tok": 2, "use_sliding_window": True, "sliding_window": 6},
    ),
    "gpt_oss": ("GptOssConfig", GPT_OSS),
    "gpt_oss_unbiased": (
        "GptOssConfig",
        {
            **GPT_OSS,
            "attention_bias": False,
            "layer_types": ["full_attention", "full_attention", "sliding_attention"],
            "swiglu_alpha": 1.2,
            "swiglu_limit": 0.8,
            "num_experts_per_tok": 1,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "qwen3_5": ("Qwen3_5TextConfig", {**QWEN35, "full_attention_interval": 3}),
    # One head of values a head of keys, another convolution, and a last layer that keeps a state.
    "qwen3_5_tied": (
        "Qwen3_5TextConfig",
        {
            **QWEN35,
            "num_hidden_layers": 3,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 3,
            "linear_conv_kernel_dim": 2,
            "num_key_value_heads": 4,
            "tie_word_embeddings": True,
            "layer_types": ["full_attention", "linear_attention", "linear_attention"],
        },
    ),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", QWEN35_MOE),
    "qwen3_5_moe_tied": (
        "Qwen3_5MoeTextConfig",
        {
            **QWEN35_MOE,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 2,
            "tie_word_embeddings": True,
            "layer_types": ["full_attention", "linear_attention"],
        },
    ),
    "qwen3_next": ("Qwen3NextConfig", QWEN35_MOE),
    "qwen3_next_as_it_is": (
        "Qwen3NextConfig",
        {
            **QWEN35_MOE,
            "num_hidden_layers": 3,
            "norm_topk_prob": False,
            "linear_num_value_heads": 2,
            "layer_types": ["full_attention", "full_attention", "linear_attention"],
        },
    ),
    "ministral3": ("Ministral3Config", {"head_dim": 20, "rope_parameters": MINISTRAL3, "pad_token_id": 0}),
}


# Those of which the default suite looks at the logits; the slow one takes all families through everything.
LATER = ("smollm3_sliding", "olmo3", "phi4_mini", "granite", "ministral3", "qwen3_next")
SLOW = (
    "olmoe",
    "gpt_oss_unbiased",
    "qwen3_moe_normalized",
    "qwen3_5_moe_tied",
    "qwen3_next_as_it_is",
    "llama_yarn",
    "qwen3_yarn",
    "smollm3",
    "olmo2",
    "phi3",
    "phi3_short",
    "ministral",
)


def hf_config(family: str):
    """The config in transformers."""
    import transformers

    name, fields = FAMILIES[family]
    return getattr(transformers, name)(**{**SHAPE, **fields})


def random_model(family: str):
    """A transformers model with weights large enough that every part of it shows in the logits."""
    import transformers

    return draw(transformers.AutoModelForCausalLM.from_config(hf_config(family), attn_implementation="eager").eval())


def draw(model):
    """The model with random weights, numbers of bfloat16, which a file of either dtype holds."""
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():
        std = 0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=std)
        parameter.data = parameter.data.to(torch.bfloat16).to(torch.float32)
    for name, buffer in model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(0.75 + torch.randint(0, 4, ()).item() / 8)
    return model


def saved(model, folder: Path, dtype: str = "float32", shard: str = "60KB") -> Path:
    """The model's folder as transformers writes it, in several files."""
    import torch

    copy.deepcopy(model).to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Applies `change` to the folder's tensors, now in one file."""
    from fit_jax.models.tensor_files import INDEX, TensorFiles, write_tensors

    files = TensorFiles(folder)
    tensors = {name: files.read(name) for name in files.tensors}
    for file in [*folder.glob("*.safetensors"), *folder.glob(INDEX)]:
        file.unlink()
    change(tensors)
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    write_tensors(folder, shapes, (partial(iter, [tensor]) for tensor in tensors.values()), 2**40)


def packed_gpt_oss(folder: Path, **fields) -> Path:
    """A gpt-oss of random weights whose experts are packed in MXFP4, as published ones are."""
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_local_experts": 3}
    config = transformers.GptOssConfig(**{**SHAPE, **GPT_OSS, **sizes, **fields})
    saved(draw(transformers.GptOssForCausalLM._from_config(config, attn_implementation="eager")), folder, "bfloat16")
    generator = np.random.default_rng(0)

    def pack(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
            experts, inputs, outputs = tensors.pop(name).shape
            groups = experts, outputs, inputs // 32
            tensors[f"{name}_blocks"] = generator.integers(0, 256, (*groups, 16), np.uint8)
            tensors[f"{name}_scales"] = generator.integers(122, 125, groups, np.uint8)

    rewrite(folder, pack)
    others = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    stored = {"quant_method": "mxfp4", "modules_to_not_convert": others}
    hf = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(hf | {"quantization_config": stored}))
    return folder


def their_logits(model, tokens: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()


def stored_tensors(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
