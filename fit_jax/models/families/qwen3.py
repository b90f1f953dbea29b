"""Qwen 3, dense: Qwen 2 without biases, with norms over each head of queries and keys."""

from fit_jax.models.families.family import LIMIT, FamilyTraits
from fit_jax.models.families.qwen2 import read, write

FAMILY = FamilyTraits(
    "Qwen3ForCausalLM",
    {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128, LIMIT: 32768},
    {"qk_norm": True},
    read=read,
    write=write,
)
