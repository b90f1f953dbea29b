"""OLMo 2: Llama with norms on the outputs of its sublayers alone, and over whole queries and keys."""

from fit_jax.models.families.family import LIMIT, FamilyTraits, nothing_more

SWITCHES = {"pre_norms": False, "post_norms": True, "qk_norm": True, "qk_norm_whole": True}

FAMILY = FamilyTraits(
    "Olmo2ForCausalLM", {LIMIT: 2048, "rms_norm_eps": 1e-5}, SWITCHES, read=nothing_more, write=nothing_more
)
