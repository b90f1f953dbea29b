"""LoRA adapters in PEFT's format, both ways (`adapter_config.json`, `adapter_model.safetensors`)."""

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fit_jax.errors import InputError, RunFailed
from fit_jax.foreign import exists, quoted, read_object, shown
from fit_jax.hub import local_folder
from fit_jax.models.config import LARGEST_RANK, PROJECTIONS, DecoderConfig, LoraConfig, ModelConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import to_host
from fit_jax.models.families import sources
from fit_jax.models.lora import Linear, LoraParam, column_norms
from fit_jax.models.tensor_files import TensorFiles, listed, write_tensors
from fit_jax.parallel.sharding import named_leaves, path_name

CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_SUFFIXES = {"lora_a": ".lora_A.weight", "lora_b": ".lora_B.weight", "lora_magnitude": ".lora_magnitude_vector"}
# Settings of PEFT that change what an adapter computes, and the values for which this decoder computes it too.
_ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
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
    if other := sorted(set(lora.targets) - set(PROJECTIONS)):
        raise InputError(f"lora.targets: {listed(other)}: no such projection; choose among {', '.join(PROJECTIONS)}")
    if model.quantize != "none" and lora.rank == 0 and lora.adapter is None:
        raise InputError(f"model.quantize {model.quantize}: a quantised model cannot be trained whole; set lora.rank")
    if lora.adapter is None:
        return lora
    folder = _folder(lora.adapter)
    peft = read_object(folder / CONFIG)
    for name, allowed in _ONLY.items():
        if peft.values.get(name) not in allowed and name in peft.values:
            raise InputError(
                f"{folder / CONFIG}: {name} {quoted(peft.values[name])} is not supported; only {allowed[0]!r} is"
            )
    modules = {name.split(".lora_")[0].rpartition(".")[2] for name in TensorFiles(folder).tensors}
    if other := sorted(modules - set(PROJECTIONS)):
        raise InputError(f"{folder}: adapts {listed(map(shown, other))}; only {', '.join(PROJECTIONS)} can be adapted")
    return dataclasses.replace(
        lora,
        rank=peft.whole("r", 1, LARGEST_RANK),
        alpha=float(peft.number("lora_alpha", 0, 1e9)),
        targets=tuple(name for name in PROJECTIONS if name in modules),
        rslora=peft.flag("use_rslora"),
        dora=peft.flag("use_dora"),
    )


def load_adapter(lora: LoraConfig, model: DecoderConfig, target: nnx.State) -> nnx.State:
    """Reads the adapter that `lora.adapter` names into a pytree of its shapes and shardings.

    Args:
        lora: Resolved config.
        model: The decoder it adapts.
        target: All adapter parameters of the decoder, and nothing else.

    Raises:
        InputError: Tensors are missing, unused or of another shape.
    """
    assert lora.adapter is not None, "by the caller's config"
    files = TensorFiles(_folder(lora.adapter))
    if whole := [n for n, tensor in files.tensors.items() if not jnp.issubdtype(tensor.dtype, jnp.floating)]:
        raise InputError(f"{files.folder}: {listed(map(shown, whole))}: holds whole numbers; train the adapter anew")
    wanted = {path: _names(path, model) for path in named_leaves(target)}
    needed = {name for names in wanted.values() for name in names}
    missing, unused = sorted(needed - set(files.tensors)), sorted(set(files.tensors) - needed)
    if missing or unused:
        raise InputError(
            f"{files.folder}: does not fit a decoder of {model.layers} layers: "
            f"missing: {listed(missing) or 'nothing'}; unused: {listed(map(shown, unused)) or 'nothing'}"
        )

    def read(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        names = wanted[path_name(path)]
        layers = np.stack([files.read(name) for name in names]).astype(leaf.dtype)
        layers = layers.swapaxes(1, 2) if layers.ndim == 3 else layers
        value = layers if path_name(path).startswith("blocks.") else layers[0]
        if value.shape != leaf.shape:
            found, expected = value.shape[::-1], leaf.shape[::-1]
            raise InputError(f"{files.folder}: {names[0]} has shape {found}; the model asks for {expected}")
        return jax.device_put(value, leaf.sharding)

    return jax.tree.map_with_path(read, target)


def write_adapter(folder: Path, decoder: Decoder, lora: LoraConfig) -> None:
    """Writes a decoder's adapter as PEFT does, and reads it back.

    Args:
        folder: Existing folder.
        decoder: The model; its base weights are not written, its `config.pretrained` is named as the base.
        lora: The adapter's config.

    Raises:
        RunFailed: The adapter does nothing, or what was written is not what was trained.
    """
    trained = nnx.state(decoder, LoraParam)
    leaves = named_leaves(trained)
    if not any(bool((leaf != 0).any()) for path, leaf in leaves.items() if path.endswith("lora_b")):
        raise RunFailed("every B of the adapter is zero: it learnt nothing; train on, or with a higher learning rate")
    _write(folder, leaves, decoder.config, lora)
    written = resolve_lora(dataclasses.replace(lora, adapter=str(folder)), decoder.config)
    back = load_adapter(written, decoder.config, trained)
    same = jax.tree.map(lambda a, b: np.array_equal(to_host(a), to_host(b)), trained, back)
    if written.scaling != lora.scaling or not all(jax.tree.leaves(same)):
        raise RunFailed(f"{folder}: the adapter read back is not the one that was trained; nothing is kept of it")


def _write(folder: Path, leaves: Mapping[str, jax.Array], model: DecoderConfig, lora: LoraConfig) -> None:
    values: dict[str, np.ndarray] = {}
    for path, leaf in leaves.items():
        host = to_host(leaf)
        for name, value in zip(_names(path, model), host if path.startswith("blocks.") else host[None]):
            values[name] = np.ascontiguousarray(value.T)
    tensors = {name: (values[name].shape, values[name].dtype) for name in sorted(values)}
    write_tensors(folder, tensors, (partial(iter, [values[name]]) for name in tensors), most_bytes=2**62)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / CONFIG).write_text(json.dumps(_peft_config(lora, model), indent=2) + "\n", encoding="utf-8")


def start_magnitudes(decoder: Decoder) -> None:
    """Sets DoRA's magnitudes to the norms of the base kernels, where PEFT starts them; for a new adapter."""

    def norms(linear: Linear) -> jax.Array:
        return column_norms(linear.weight(jnp.float32))

    for _, module in nnx.iter_modules(decoder):
        if isinstance(module, Linear) and hasattr(module, "lora_magnitude"):
            stacked = module.lora_magnitude[...].ndim == 2
            graphdef, state = nnx.split(module)

            def of_layer(state: nnx.State, graphdef: Any = graphdef) -> jax.Array:
                return norms(nnx.merge(graphdef, state))

            module.lora_magnitude[...] = (jax.vmap(of_layer) if stacked else of_layer)(state)


def _folder(name: str) -> Path:
    folder = local_folder(name, ("adapter_*",), "adapter")
    if not exists(folder / CONFIG):
        raise InputError(f"{folder}: holds no PEFT adapter ({CONFIG} is missing)")
    return folder


def _names(path: str, model: DecoderConfig) -> list[str]:
    """PEFT's names for an adapter parameter, one a layer."""
    module, _, leaf = path.rpartition(".")
    kernels = sources(f"{module}.kernel", model)
    return [_PREFIX + kernel.name.removesuffix(".weight") + _SUFFIXES[leaf] for kernel in kernels]


def _peft_config(lora: LoraConfig, model: DecoderConfig) -> Mapping[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.pretrained,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
