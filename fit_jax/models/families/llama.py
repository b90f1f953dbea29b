"""Llama 2, 3 and 3.1, and what is built like them: Vicuna, TinyLlama, SmolLM 1 and 2."""

from fit_jax.models.families.family import LIMIT, FamilyTraits, nothing_more

FAMILY = FamilyTraits("LlamaForCausalLM", {LIMIT: 2048}, read=nothing_more, write=nothing_more)
