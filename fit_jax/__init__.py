"""Focus instruction tuning of language models in JAX: "focus on this, ignore that", learned and measured."""

import os

# Only tokenizers and configurations are taken from transformers, which otherwise advises to install PyTorch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
