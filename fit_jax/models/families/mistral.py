"""Mistral: Llama in whose early versions every layer slides."""

from fit_jax.models.families.family import LIMIT, FamilyTraits, read_one_window, write_one_window

FAMILY = FamilyTraits(
    "MistralForCausalLM", {"sliding_window": 4096, LIMIT: 131072}, read=read_one_window, write=write_one_window
)
