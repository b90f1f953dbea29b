"""Models between Hugging Face, this project's imported form, PEFT and training runs; each result is checked."""

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax.numpy as jnp

from fit_jax.conversion.opened import STORED, Loaded, dtype_of, load_found, open_model, stored_dtype
from fit_jax.conversion.parity import Agreement, compare, probe_logits, probe_tokens
from fit_jax.errors import InputError, RunFailed
from fit_jax.files import new_folder
from fit_jax.focus import prompt_file
from fit_jax.foreign import check_regular, exists, listed, named, read_object
from fit_jax.models.adapters import trained_adapter, write_adapter
from fit_jax.models.config import DecoderConfig, ModelConfig
from fit_jax.models.export import save_merged, save_own
from fit_jax.models.families import QUANTIZATION
from fit_jax.models.llama2c import convert, is_llama2c
from fit_jax.models.model_folder import open_pretrained, resolve_pretrained, unlike_family
from fit_jax.models.mxfp4 import PackedFiles
from fit_jax.models.weights import abstract_parameters, load_weights, tensor_files
from fit_jax.parallel.sharding import named_leaves

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

GENERATION = "generation_config.json"


def import_model(
    source: str, target: Path, quantize: Literal["none", "int8", "nf4"] = "none", dtype: str | None = None
) -> DecoderConfig:
    """Brings a model into the form that training reads fastest; llama2.c files become a Hugging Face folder.

    Args:
        source: Hugging Face folder or hub id, or a llama2.c `.bin` file with its `tok*.bin` beside it.
        target: New folder.
        quantize: `none`, `int8` or `nf4`; the projections are then stored so.
        dtype: float32 or bfloat16; None keeps the model's own, where float16, which nothing computes with, becomes
            float32.

    Raises:
        InputError: The source is no such model or is damaged, the dtype is another one, or the target exists.
    """
    if dtype not in (None, "float32", "bfloat16"):
        raise InputError(f"--dtype {dtype}: imported models are stored as float32 or bfloat16; choose one of these")
    if is_llama2c(Path(source)):
        if quantize != "none" or dtype is not None:
            raise InputError("a llama2.c file becomes a Hugging Face folder as it is; import that folder with options")
        with new_folder(target) as folder:
            hf = convert(Path(source), folder)
            _write_json(folder / "config.json", hf)
            _write_json(folder / GENERATION, {k: v for k, v in hf.items() if k.endswith("_token_id")})
            _write_tokenizer(_llama2c_tokenizer(Path(source)), folder)
        return resolve_pretrained(ModelConfig(), str(target))
    found = open_pretrained(source)
    if found.own:
        raise InputError(f"{source}: is imported already")
    own = dtype or stored_dtype(found)
    model = ModelConfig(
        pretrained=source, quantize=quantize, param_dtype="bfloat16" if own == "bfloat16" else "float32"
    )
    loaded = load_found(model, found)
    _demand_finite(loaded, source)
    with new_folder(target) as folder:
        save_own(folder, loaded.decoder, _unpacked(found.hf))
        _write_tokenizer(loaded.tokenizer, folder)
        _copy(found.folder / GENERATION, folder)
    return loaded.decoder.config


def export_merged(source: str, target: Path, dtype: str | None = None, trust_code: bool = False) -> Agreement:
    """Writes a folder that `AutoModelForCausalLM` loads, adapters merged, and reads it back to compare logits.

    Args:
        source: Run folder, imported model or Hugging Face folder.
        target: New folder.
        dtype: float32, bfloat16 or float16; None takes the base model's.
        trust_code: As `fit_jax.runs.run.set_up`'s, for a run folder.

    Returns:
        How the logits of what was written agree with those of the unmerged model.

    Raises:
        InputError: The source is no model, holds weights that are not finite or that the dtype does not hold well, or
            the target exists.
        RunFailed: The logits differ by more than rounding explains; nothing is left behind.
    """
    loaded = open_model(source, trust_code)
    _demand_finite(loaded, source)
    dtype = dtype or dtype_of(loaded.hf, source)
    config = loaded.decoder.config
    if config.pretrained is None and (why := unlike_family(config)):
        raise InputError(
            f"{named(source)}: {why}, so transformers has no such model; change that or model.family, and train again"
        )
    packed = _untouched(loaded)
    hf = loaded.hf if packed is not None else _unpacked(loaded.hf)
    with new_folder(target) as folder:
        save_merged(folder, loaded.decoder, STORED[dtype], packed=packed)
        _write_json(folder / "config.json", {k: v for k, v in hf.items() if k != "torch_dtype"} | {"dtype": dtype})
        if not _copy(loaded.files / GENERATION, folder):
            ids = {k: v for k, v in loaded.hf.items() if k.endswith("_token_id") and v is not None}
            _write_json(folder / GENERATION, ids)
        _write_company(loaded, folder)
        tokens = probe_tokens(config)
        before = probe_logits(loaded.graphdef, loaded.params, tokens)
        model = resolve_pretrained(dataclasses.replace(config, quantize="none"), str(folder))
        graphdef, shapes = abstract_parameters(model)
        agreement = compare(before, probe_logits(graphdef, (load_weights(model, shapes),), tokens))
        _demand(agreement, dtype, config.compute_dtype, f"{named(target)}: the merged model")
    return agreement


def export_adapter(source: str, target: Path, trust_code: bool = False) -> None:
    """Writes the adapter of a run in PEFT's format, and reads it back to compare.

    Args:
        source: Run folder.
        target: New folder.
        trust_code: As `fit_jax.runs.run.set_up`'s.

    Raises:
        InputError: The run has no adapter, or no pretrained text model underneath, or the target exists.
        RunFailed: The adapter does nothing, or what was written is not what was trained.
    """
    loaded = open_model(source, trust_code)
    base = loaded.decoder.config.pretrained
    if not loaded.lora.rank:
        raise InputError(f"{source}: was fully fine-tuned, without an adapter; use export-merged")
    if base is None:
        raise InputError(f"{source}: its adapter stands on random weights that no one else has; use export-merged")
    if open_pretrained(base).left_out:
        raise InputError(
            f"{base}: holds other encoders, beside which PEFT names the text's layers otherwise; use export-merged"
        )
    _demand_finite(loaded, source)
    with new_folder(target) as folder:
        write_adapter(folder, trained_adapter(loaded.decoder, loaded.lora))
        _write_company(loaded, folder)


def _untouched(loaded: Loaded) -> PackedFiles | None:
    """The files whose packed tensors the model still has: those of its base, beside adapters or as it came."""
    config = loaded.decoder.config
    tuned = loaded.prompts is not None and (not loaded.lora.rank or loaded.lora.experts)
    if config.pretrained is None or config.quantize != "none" or tuned:
        return None
    files = tensor_files(open_pretrained(config.pretrained))
    return files if isinstance(files, PackedFiles) else None


def _unpacked(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model none of whose tensors is packed any more."""
    return {name: value for name, value in hf.items() if name != QUANTIZATION}


def _demand(agreement: Agreement, stored: str, computed: str, what: str) -> None:
    if not math.isfinite(agreement.scale):
        raise InputError(
            "the model's logits are not finite: its weights are damaged; take them from their source again"
        )
    if not agreement.within(_coarser(stored, computed)):
        message = (
            f"{what} computes other logits than the original: they differ by up to {agreement.largest:.3g} "
            f"where the largest is {agreement.scale:.3g}"
        )
        if stored == "float32":
            raise RunFailed(f"{message}; nothing was written")
        raise InputError(f"{message}; {stored} does not hold its weights well enough: choose dtype float32")


def _coarser(first: str, second: str) -> str:
    order = ("float32", "float16", "bfloat16")
    return max(first, second, key=order.index)


def _demand_finite(loaded: Loaded, source: str) -> None:
    """Refuses a model that holds NaN or infinity: nothing can be computed with it, or compared."""
    bad = [
        path
        for part in loaded.params
        for path, leaf in named_leaves(part).items()
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not bool(jnp.isfinite(leaf).all())
    ]
    if bad:
        raise InputError(
            f"{named(source)}: holds NaN or infinity in {listed(bad, 3)}; use another checkpoint or fetch it again"
        )


def _llama2c_tokenizer(model: Path) -> "PreTrainedTokenizerFast | None":
    from fit_jax.focus.tokenizers import load_tokenizer

    files = sorted(model.parent.glob("tok*.bin"))
    return load_tokenizer(files[0]) if len(files) == 1 else None


def _write_tokenizer(tokenizer: "PreTrainedTokenizerBase | None", folder: Path) -> None:
    from fit_jax.focus.tokenizers import save_tokenizer

    if tokenizer is not None:
        save_tokenizer(tokenizer, folder)


def _write_company(loaded: Loaded, folder: Path) -> None:
    """Writes what goes with a model: its tokenizer, and of a run's the card and how it is asked."""
    from fit_jax.runs.run_folder import CARD

    _write_tokenizer(loaded.tokenizer, folder)
    _copy(loaded.files / CARD, folder)
    if loaded.prompts is not None:
        for name, encoder in prompt_file.encoders(loaded.prompts).items():
            (folder / name).write_text(prompt_file.prompt_file(encoder), encoding="utf-8")


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _copy(file: Path, folder: Path) -> bool:
    """Copies a file where there is one; a generation config must be one."""
    if not exists(file):
        return False
    if file.name == GENERATION:
        read_object(file)
    check_regular(file)
    shutil.copy(file, folder)
    return True
