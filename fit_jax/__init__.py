"""Focus instruction tuning of language models in JAX: "focus on this, ignore that", learned and measured."""
