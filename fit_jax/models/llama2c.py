"""Llama models in the version 0 format of llama2.c: a header of seven numbers, then the weights in fp32."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, named
from fit_jax.models.config import DecoderConfig
from fit_jax.models.families import config_to_hf
from fit_jax.models.tensor_files import write_tensors

BOS, EOS = 1, 2


def is_llama2c(path: Path) -> bool:
    """Whether the path is a file of this format, by name."""
    return path.is_file() and path.suffix == ".bin"


def convert(path: Path, folder: Path) -> dict[str, Any]:
    """Writes the model's weights as safetensors into an existing folder.

    Returns:
        Its Hugging Face config.

    Raises:
        InputError: The file is truncated or of another format.
    """
    check_regular(path)
    size = path.stat().st_size
    if size < 28 or size % 4:
        raise InputError(f"{named(path)}: {size} bytes are no llama2.c model; fetch it again")
    data = np.memmap(path, np.uint8, "r")
    D, F, L, H, K, V, length = (int(n) for n in data[:28].view(np.int32))
    tied, V = V > 0, abs(V)
    if min(D, F, L, H, K, V, length) <= 0 or D % H or H % K or D // H % 2:
        raise InputError(f"{named(path)}: its header is no llama2.c one (version 0)")
    config = DecoderConfig(
        layers=L, width=D, feed_forward=F, heads=H, kv_heads=K, head_dim=D // H, vocab_size=V, tied=tied
    )
    G, numbers = D // H, data[28:].view(np.float32)
    shapes = {
        "embed": (V, D),
        "attention_norm": (L, D),
        "q": (L, D, D),
        "k": (L, K * G, D),
        "v": (L, K * G, D),
        "o": (L, D, D),
        "mlp_norm": (L, D),
        "gate": (L, F, D),
        "down": (L, D, F),
        "up": (L, F, D),
        "final_norm": (D,),
        "rope_tables": (2, length, G // 2),
        **({} if tied else {"head": (V, D)}),
    }
    needed = sum(map(math.prod, shapes.values()))  # in Python's numbers, which do not wrap round
    if numbers.size != needed:
        raise InputError(
            f"{named(path)}: holds {numbers.size} weights where its header asks for {needed}; fetch it again"
        )
    weights, start = {}, 0
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        weights[name] = numbers[start:end].reshape(shape)
        start = end
    tensors = dict(_tensors(weights, H, K))
    layout = {name: (value.shape, np.dtype(np.float32)) for name, value in tensors.items()}
    write_tensors(folder, layout, (partial(iter, [value]) for value in tensors.values()), most_bytes=2**62)
    tokens = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": None}
    return config_to_hf(config, max_positions=length, tokens=tokens) | {"dtype": "float32"}


def _tensors(weights: dict[str, np.ndarray], heads: int, kv_heads: int) -> Iterator[tuple[str, np.ndarray]]:
    yield "model.embed_tokens.weight", weights["embed"]
    for layer in range(weights["q"].shape[0]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", weights["attention_norm"][layer]
        yield prefix + "self_attn.q_proj.weight", _halves(weights["q"][layer], heads)
        yield prefix + "self_attn.k_proj.weight", _halves(weights["k"][layer], kv_heads)
        yield prefix + "self_attn.v_proj.weight", weights["v"][layer]
        yield prefix + "self_attn.o_proj.weight", weights["o"][layer]
        yield prefix + "post_attention_layernorm.weight", weights["mlp_norm"][layer]
        for name in ("gate", "up", "down"):
            yield f"{prefix}mlp.{name}_proj.weight", weights[name][layer]
    yield "model.norm.weight", weights["final_norm"]
    if "head" in weights:
        yield "lm_head.weight", weights["head"]


def _halves(kernel: np.ndarray, heads: int) -> np.ndarray:
    """A projection whose heads rotate neighbouring pairs, reordered for heads that rotate their two halves."""
    outputs, inputs = kernel.shape
    return kernel.reshape(heads, outputs // heads // 2, 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)
