"""What an adapter is, by its config: ours and that of PEFT (`adapter_config.json`), both ways."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, exists, listed, named, quoted, read_object, shown
from fit_jax.hub import local_folder
from fit_jax.models.config import EXPERT_PROJECTIONS, PROJECTIONS, DecoderConfig, ModelConfig
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
        InputError: A projection that does not exist, a quantised model without an adapter, experts that can have none,
            no such adapter, or PEFT settings that this decoder does not have.
    """
    known = (*_projections(model), *(model.expert_projections() if lora.experts and model.expert_width else ()))
    if other := sorted(set(lora.targets) - set(known)):
        raise InputError(f"lora.targets: {listed(other)}: no such projection; choose among {', '.join(known)}")
    if model.quantize != "none" and lora.rank == 0 and lora.adapter is None:
        raise InputError(
            f"model.quantize {model.quantize}: a quantised model cannot be fully fine-tuned; set lora.rank"
        )
    return _of_adapter(lora, lora.adapter, model) if lora.adapter is not None else _as_asked(lora, model)


def _as_asked(lora: LoraConfig, model: ModelConfig) -> LoraConfig:
    """The config of a new adapter, whose targets are those that the model has."""
    if not lora.rank and lora.experts:
        raise InputError("lora.experts: there are no adapters without a rank; set lora.rank, or leave it out")
    if not lora.rank:
        return lora
    if lora.experts and not model.experts:
        raise InputError("lora.experts: the model has no experts; leave it out")
    for name in ("dora", "rslora"):
        if lora.experts and getattr(lora, name):
            raise InputError(f"lora.experts: PEFT computes no lora.{name} of experts; leave one of the two out")
    together = dict(fused_projections(model))
    if lora.experts:
        together["tensor in transformers 5"] = ("gate_proj", "up_proj")
    if lora.dora and (by_parameter := {*_shared_parameters(model).values()} & {*lora.targets}):
        raise InputError(
            f"lora.dora: PEFT computes none for {', '.join(sorted(by_parameter))} of {model.family}; leave one of the "
            "two out"
        )
    for whole, parts in together.items():
        if 0 < len({*parts} & {*lora.targets}) < len(parts):
            raise InputError(
                f"lora.targets: {model.family} stores {', '.join(parts)} as one {whole}; name all of them or none"
            )
    if lora.experts and not {*lora.targets} & {*EXPERT_PROJECTIONS, *model.expert_projections()}:
        raise InputError(
            f"lora.experts: lora.targets names none of their projections, {', '.join(EXPERT_PROJECTIONS)}; add some, "
            "or leave lora.experts out"
        )
    own = model.expert_projections() if lora.experts else ()
    # Of experts beside a feed-forward part, those of the same names as the part's.
    beside = [name for name in own if model.expert_width and name.removeprefix("experts.") in lora.targets]
    able = {*_stored(model, lora.experts), *own}
    targets = tuple(dict.fromkeys(name for name in (*lora.targets, *beside) if name in able))
    if not targets:
        more = ", or set lora.experts" if model.experts else ""
        raise InputError(
            f"lora.targets: experts have no adapters; choose among {', '.join(_stored(model, False))}{more}"
        )
    return dataclasses.replace(lora, targets=targets)


def _of_adapter(lora: LoraConfig, adapter: str, model: ModelConfig) -> LoraConfig:
    """The config with what the adapter says of itself."""
    folder = adapter_folder(adapter, (CONFIG,))
    peft = read_object(folder / CONFIG)
    peft.choice("peft_type", ("LORA",))
    for name, allowed in _ONLY.items():
        if peft.values.get(name) not in allowed and name in peft.values:
            raise InputError(
                f"{named(folder / CONFIG)}: {name} {quoted(peft.values[name])} is not supported; only {allowed[0]!r} is"
            )
    stored = _stored(model, experts_by_name(model))
    by_parameter = _of_parameters(peft, model)
    listing = None if isinstance(peft.values.get("target_modules"), str) else peft.texts("target_modules")
    modules = set() if by_parameter and not listing else _adapted(adapter, listing, {*stored.values()})
    if other := sorted(modules - {*stored.values()}):
        names = ", ".join(dict.fromkeys(stored.values()))
        raise InputError(f"{named(folder)}: adapts {listed(map(shown, other))}; only {names} can be adapted")
    targets = tuple(name for name in stored if stored[name] in modules)
    targets = tuple(dict.fromkeys((*targets, *by_parameter)))
    found = dataclasses.replace(
        lora,
        rank=peft.whole("r", 1, LARGEST_RANK),
        alpha=float(peft.number("lora_alpha", 0, 1e9)),
        targets=targets,
        experts=any(name in model.expert_projections() for name in targets),
        rslora=peft.flag("use_rslora"),
        dora=peft.flag("use_dora"),
    )
    if found.experts and (found.dora or found.rslora):
        kind = "use_dora" if found.dora else "use_rslora"
        raise InputError(f"{named(folder / CONFIG)}: {kind} is not supported where experts are adapted")
    for name, allowed in _patterns(found, model).items():
        if peft.values.get(name) not in (None, {}, allowed):
            raise InputError(
                f"{named(folder / CONFIG)}: {name} {quoted(peft.values[name])} is not supported; only None is"
            )
    return found


def peft_config(lora: LoraConfig, model: DecoderConfig) -> dict[str, object]:
    """`adapter_config.json` of the adapter that a resolved config describes."""
    stored = _stored(model, lora.experts and experts_by_name(model))
    shared = _shared_parameters(model)
    modules = [stored[name] for name in lora.targets if name in stored and name not in shared.values()]
    parameters = [name for name, parts in stacked_parameters(model).items() if {*parts} & {*lora.targets} - {*stored}]
    parameters += [name for name, part in shared.items() if part in lora.targets]
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.pretrained,
        "r": lora.rank,
        "lora_alpha": _plain(lora.alpha),
        "lora_dropout": 0.0 if lora.experts or parameters else lora.dropout,  # PEFT has none of parameters
        "target_modules": list(dict.fromkeys(modules)),
        **({"target_parameters": parameters} if parameters else {}),
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
    return (*PROJECTIONS, *model.linear.projections) if model.linear.layers else PROJECTIONS


def experts_by_name(model: ModelConfig) -> bool:
    """Whether PEFT knows each expert's projections by a name of their own, which no other projection has."""
    own = family_traits(model.family).experts
    return model.experts > 0 and not model.expert_width and all("{}" in own[name] for name in EXPERT_PROJECTIONS)


def stacked_parameters(model: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The parameters in which transformers 5 holds all experts of a layer, and the projections in each, in order."""
    if not model.experts:
        return {}
    stored, (gate, up, down) = family_traits(model.family).experts, model.expert_projections()
    stem = "mlp.experts" if "{}" in stored["gate_proj"] else stored["gate_proj"].rpartition(".")[0]
    return {f"{stem}.gate_up_proj": (gate, up), f"{stem}.down_proj": (down,)}


def _shared_parameters(model: ModelConfig) -> dict[str, str]:
    """The parameters of a shared expert whose modules' names PEFT takes for those of all experts; their projections."""
    if not family_traits(model.family).shared_by_parameter:
        return {}
    return {f"mlp.shared_expert.{name}.weight": name for name in EXPERT_PROJECTIONS}


def _of_parameters(peft: Fields, model: ModelConfig) -> list[str]:
    """The projections that PEFT adapts as parameters (`target_parameters`), which may be told by the ends of names."""
    known = stacked_parameters(model)
    if model.shared_expert:
        known = known | {f"mlp.shared_expert.{name}.weight": (name,) for name in EXPERT_PROJECTIONS}
    found: list[str] = []
    for given in peft.texts("target_parameters") or ():
        parts = [known[name] for name in known if f".{name}".endswith(f".{given}")]
        if not parts:
            raise peft.error(
                "target_parameters", given, f"none of {', '.join(known) or 'those of experts, which the model lacks'}"
            )
        found += [part for each in parts for part in each]
    return found


def _stored(model: ModelConfig, experts: bool) -> dict[str, str]:
    """The projections that may have adapters, those of experts or not, and the names that PEFT has for them."""
    traits = family_traits(model.family)
    stored = {name: name for name in _projections(model) if name not in model.expert_projections()}
    stored |= {part: fused for fused, parts in fused_projections(model).items() for part in parts}
    if experts and experts_by_name(model):
        stored |= {name: traits.experts[name].rpartition(".")[2] for name in EXPERT_PROJECTIONS}
    return stored


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
    together = fused_projections(model)
    if not experts_by_name(model):
        together |= {name: parts for name, parts in stacked_parameters(model).items() if len(parts) > 1}
    counts = {fused: len(parts) for fused, parts in together.items() if parts[0] in lora.targets}
    alphas = {fused: lora.alpha * (count**0.5 if lora.rslora else count) for fused, count in counts.items()}
    return {
        "rank_pattern": {fused: lora.rank * count for fused, count in counts.items()},
        "alpha_pattern": {fused: _plain(alpha) for fused, alpha in alphas.items()},
    }


def _plain(number: float) -> float:
    return int(number) if number == int(number) else number
