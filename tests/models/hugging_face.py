"""Tiny random models of every family, made with transformers from that family's own config class."""

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
}


def random_model(family: str):
    """A transformers model with weights large enough that every part of it shows in the logits."""
    import torch
    import transformers

    name, fields = FAMILIES[family]
    config = getattr(transformers, name)(**{**SHAPE, **fields})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        std = 0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
        torch.nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 else 0.0, std=std)
    return model


def saved(model, folder: Path, dtype: str = "float32", shard: str = "60KB") -> Path:
    """The model's folder as transformers writes it, in several files."""
    import torch

    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard)
    model.to(torch.float32)
    return folder


def their_logits(model, tokens: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()


def stored_tensors(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
