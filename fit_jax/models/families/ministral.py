"""Ministral (2024): Mistral whose layers may slide in a pattern."""

from fit_jax.models.families.family import LIMIT, FamilyTraits

FAMILY = FamilyTraits("MinistralForCausalLM", {"sliding_window": 4096, LIMIT: 131072, "num_key_value_heads": 8})
