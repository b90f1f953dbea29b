"""Parity of a model here with transformers' own implementation, on the user's machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fit_jax.conversion.parity import TOLERANCE, compare, probe_logits, probe_tokens
from fit_jax.errors import InputError
from fit_jax.evaluation.decoding import SamplingParams, generate
from fit_jax.foreign import exists, named, shown
from fit_jax.models.adapter_config import CONFIG as ADAPTER
from fit_jax.models.config import ModelConfig
from fit_jax.models.model_folder import open_pretrained, resolve_pretrained
from fit_jax.models.tensor_files import TensorFiles
from fit_jax.models.weights import abstract_parameters, load_weights

GREEDY_TOKENS, PROMPT_TOKENS = 64, 8


class Row(NamedTuple):
    """One line of the table: what was compared, what came out, what was demanded."""

    what: str
    found: str
    demanded: str
    passed: bool


def check_parity(name: str) -> list[Row]:
    """Compares logits and greedy continuations in fp32.

    Args:
        name: Hugging Face folder or hub id.

    Raises:
        InputError: There is no such model, it is quantised, transformers cannot load it, or PyTorch is not installed.
    """
    found = open_pretrained(name)
    folder = found.folder
    if found.quantization and found.quantization.of_any_family:
        raise InputError(
            f"{named(folder)}: is quantised ({found.quantization.method}), and transformers computes with such weights "
            "in ways of its own; check the model that it was made from"
        )
    if exists(folder / ADAPTER):  # transformers would follow it to another model
        raise InputError(f"{named(folder)}: holds an adapter ({ADAPTER}); check compares whole models, so name one")
    TensorFiles(folder)  # of what only PyTorch's pickles hold, nothing is ever loaded
    torch, reference = _reference(folder)
    model = resolve_pretrained(ModelConfig(), name)
    graphdef, shapes = abstract_parameters(model)
    params = (load_weights(model, shapes),)
    tokens = probe_tokens(model)
    with torch.no_grad():
        theirs = reference(torch.from_numpy(tokens.astype(np.int64))).logits.float().numpy()
        prompts = tokens[:, :PROMPT_TOKENS]
        ids = torch.from_numpy(prompts.astype(np.int64))
        continued = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=GREEDY_TOKENS,
            min_new_tokens=GREEDY_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )[:, PROMPT_TOKENS:].numpy()
    agreement = compare(theirs, probe_logits(graphdef, params, tokens))
    ours = np.stack(generate(graphdef, params, list(prompts), SamplingParams(tokens=GREEDY_TOKENS)))
    same = float((ours == continued).mean())
    limit = TOLERANCE["float32"]
    return [
        Row("largest difference of logits", f"{agreement.largest:.2e}", f"<= {limit * agreement.scale:.2e}",
            agreement.within("float32")),
        Row("mean difference of logits", f"{agreement.mean:.2e}", "", True),
        Row("same likeliest token", f"{agreement.same_argmax:.2%}", ">= 99.00%", agreement.same_argmax >= 0.99),
        Row(f"same greedy {GREEDY_TOKENS} tokens", f"{same:.2%}", "100.00%", same == 1.0),
    ]  # fmt: skip


def print_parity(rows: Sequence[Row]) -> None:
    """Prints the table."""
    from rich.table import Table

    from fit_jax.terminal import Terminal

    table = Table(title="here against transformers, fp32")
    for column in ("compared", "found", "demanded", ""):
        table.add_column(column)
    for row in rows:
        table.add_row(row.what, row.found, row.demanded, "ok" if row.passed else "FAILED")
    Terminal().print(table)


def _reference(folder: Path) -> tuple[Any, Any]:
    """PyTorch and transformers' model of the folder, in fp32."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise InputError("check compares with transformers on PyTorch: pip install torch") from error
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # transformers raises what it likes
        raise InputError(
            f"{named(folder)}: transformers cannot load it ({shown(str(error))}); fetch the files again"
        ) from error
    # Only the likeliest token is asked for; settings for sampling or stopping of its own would change that.
    model.generation_config.eos_token_id = None
    return torch, model.eval()
