"""Focus instruction tuning of language models in JAX: "focus on this, ignore that", learned and measured.

    import fit_jax

    model = fit_jax.tune("runs/demo", "demo")      # or fit_jax.load("runs/demo")
    model.ask("The handle is awful, and Marlin it came with a sticker.", focus="keyword").answer

See docs/api.md.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fit_jax.api import Answer, Attribution, FocusModel, LabelledText, Scores, load, tune
    from fit_jax.errors import InputError

__all__ = ["Answer", "Attribution", "FocusModel", "InputError", "LabelledText", "Scores", "load", "tune"]

# Only tokenizers and configurations are taken from transformers, which otherwise advises to install PyTorch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def __getattr__(name: str) -> Any:
    """Loads what is asked for, so that a command's `--help` need not."""
    if name not in __all__:
        raise AttributeError(f"module 'fit_jax' has no attribute {name!r}")
    return getattr(importlib.import_module("fit_jax.errors" if name == "InputError" else "fit_jax.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
