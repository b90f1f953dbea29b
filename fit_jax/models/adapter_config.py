"""What an adapter is, by its config: ours and that of PEFT (`adapter_config.json`), both ways."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fit_jax.errors import InputError
from fit_jax.foreign import exists, listed, named, quoted, read_object, shown
from fit_jax.hub import local_folder
from fit_jax.models.config import LINEAR_PROJECTIONS, PROJECTIONS, DecoderConfig, ModelConfig
from fit_jax.models.families import family_traits
from fit_jax.models.lora_config import LARGEST_RANK, LoraConfig
from fit_jax.models.tensor_files import TensorFiles

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Settings of PEFT that change what an adapter computes, and the values for which this decoder computes it too.
_ONLY: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "fan_in_fan_out": (None, False),
    "lora_bias": (None, False),
}


def resolve_lora(lora: LoraConfig, model: ModelConfig) -> LoraConfig:
    """The config with rank, alpha, targets and kind of the adapter it goes on from, if it names one.

    Args:
        lora: What the run asks for.
        model: The model that it adapts.

    Raises:
        InputError: A projection that does not exist, a quantised model without an adapter, no such adapter, or PEFT
            settings that this decoder does not have.
    """
    known = _projections(model)
    if other := sorted(set(lora.targets) - set(known)):
        raise InputError(f"lora.targets: {listed(other)}: no such projection; choose among {', '.join(known)}")
    if model.quantize != "none" and lora.rank == 0 and lora.adapter is None:
        raise InputError(
            f"model.quantize {model.quantize}: a quantised model cannot be fully fine-tuned; set lora.rank"
        )
    for fused, parts in fused_projections(model).items():
        if lora.adapter is None and lora.rank and 0 < len({*parts} & {*lora.targets}) < len(parts):
            raise InputError(
                f"lora.targets: {model.family} stores {', '.join(parts)} as one {fused}; name all of them or none"
            )
    if lora.adapter is None:
        targets = tuple(name for name in lora.targets if name in _adaptable(model))
        if lora.rank and not targets:
            raise InputError(f"lora.targets: experts have no adapters; choose among {', '.join(_adaptable(model))}")
        return dataclasses.replace(lora, targets=targets) if lora.rank else lora
    folder = adapter_folder(lora.adapter, (CONFIG,))
    peft = read_object(folder / CONFIG)
    peft.choice("peft_type", ("LORA",))
    for name, allowed in _ONLY.items():
        if peft.values.get(name) not in allowed and name in peft.values:
            raise InputError(
                f"{named(folder / CONFIG)}: {name} {quoted(peft.values[name])} is not supported; only {allowed[0]!r} is"
            )
    stored = {projection: projection for projection in _adaptable(model)}
    stored |= {part: fused for fused, parts in fused_projections(model).items() for part in parts}
    listing = None if isinstance(peft.values.get("target_modules"), str) else peft.texts("target_modules")
    modules = _adapted(lora.adapter, listing, {*stored.values()})
    if other := sorted(modules - {*stored.values()}):
        names = ", ".join(dict.fromkeys(stored.values()))
        raise InputError(f"{named(folder)}: adapts {listed(map(shown, other))}; only {names} can be adapted")
    found = dataclasses.replace(
        lora,
        rank=peft.whole("r", 1, LARGEST_RANK),
        alpha=float(peft.number("lora_alpha", 0, 1e9)),
        targets=tuple(name for name in stored if stored[name] in modules),
        rslora=peft.flag("use_rslora"),
        dora=peft.flag("use_dora"),
    )
    for name, allowed in _patterns(found, model).items():
        if peft.values.get(name) not in (None, {}, allowed):
            raise InputError(
                f"{named(folder / CONFIG)}: {name} {quoted(peft.values[name])} is not supported; only None is"
            )
    return found


def peft_config(lora: LoraConfig, model: DecoderConfig) -> dict[str, object]:
    """`adapter_config.json` of the adapter that a resolved config describes."""
    stored = {part: fused for fused, parts in fused_projections(model).items() for part in parts}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.pretrained,
        "r": lora.rank,
        "lora_alpha": _plain(lora.alpha),
        "lora_dropout": lora.dropout,
        "target_modules": list(dict.fromkeys(stored.get(name, name) for name in lora.targets)),
        **_patterns(lora, model),
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }


def adapter_folder(name: str, files: tuple[str, ...] = ("adapter_*",)) -> Path:
    """The folder of an adapter that is named by its folder or its hub id.

    Args:
        name: Folder or hub id.
        files: What to fetch from the hub.

    Raises:
        InputError: There is none, or it holds no adapter.
    """
    folder = local_folder(name, files, "adapter")
    if not exists(folder / CONFIG):
        raise InputError(f"{named(folder)}: holds no PEFT adapter ({CONFIG} is missing)")
    return folder


def fused_projections(model: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The fused projections of a family by name, and their parts."""
    return {whole.rpartition(".")[2]: parts for whole, parts in family_traits(model.family).fused.items()}


def _projections(model: ModelConfig) -> tuple[str, ...]:
    """The projections that layers of such a model have."""
    return (*PROJECTIONS, *LINEAR_PROJECTIONS) if model.linear.layers else PROJECTIONS


def _adaptable(model: ModelConfig) -> list[str]:
    """The projections that may have adapters: all but those of experts, which PEFT adapts in no one way."""
    return [name for name in _projections(model) if name not in model.expert_projections()]


def _adapted(adapter: str, listing: list[str] | None, known: Collection[str]) -> set[str]:
    """The modules that an adapter adapts: those that its config lists, so that a plan reads no weights.

    Where the config holds a pattern, or names that are none of the known ones and may fit nothing, its tensors tell.
    """
    modules = {name.rpartition(".")[2] for name in listing or ()}
    if modules and modules <= {*known}:
        return modules
    return {name.split(".lora_")[0].rpartition(".")[2] for name in TensorFiles(adapter_folder(adapter)).tensors}


def _patterns(lora: LoraConfig, model: ModelConfig) -> dict[str, dict[str, float]]:
    """`rank_pattern` and `alpha_pattern`: fused projections have a rank for each part, and the scale of all others."""
    counts = {fused: len(parts) for fused, parts in fused_projections(model).items() if parts[0] in lora.targets}
    alphas = {fused: lora.alpha * (count**0.5 if lora.rslora else count) for fused, count in counts.items()}
    return {
        "rank_pattern": {fused: lora.rank * count for fused, count in counts.items()},
        "alpha_pattern": {fused: _plain(alpha) for fused, alpha in alphas.items()},
    }


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
