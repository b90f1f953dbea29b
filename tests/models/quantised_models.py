"""Models whose projections are quantised as others do it, by packing written out from the formats' descriptions."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from .hugging_face import rewrite

GROUP, BLOCK, TILE = 16, 64, (8, 16)
CONFIGS = {
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": False},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": list(TILE)},
}
_GENERATOR = np.random.default_rng(0)


def quantise(folder: Path, method: str, but: str = "none") -> dict[str, np.ndarray]:
    """Quantises a folder's projections in place, but not those named `but`; returns the numbers of each."""
    numbers = {}

    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight") and but not in name]:
            stem = name.removesuffix(".weight")
            packed, numbers[name] = PACK[method](tensors.pop(name).astype(np.float32))
            tensors.update({f"{stem}.{end}": value for end, value in packed.items()})

    rewrite(folder, change)
    hf = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(hf | {"quantization_config": CONFIGS[method]}))
    return numbers


def _coded(weight: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes (inputs, outputs), zeros and scales (groups, outputs) of a weight, and the numbers they stand for."""
    count = groups.max() + 1
    scales = np.stack([np.abs(weight[:, groups == g]).max(1) / 7 for g in range(count)]).astype(np.float16)
    zeros = _GENERATOR.integers(1, 15, scales.shape)
    spread = scales.astype(np.float32)[groups]
    codes = np.clip(np.round(weight.T / spread) + zeros[groups], 0, 15).astype(np.int64)
    return codes, zeros, scales, ((codes - zeros[groups]) * spread).T.astype(np.float32)


def words(numbers: np.ndarray, order: tuple[int, ...] = tuple(range(8))) -> np.ndarray:
    """Eight numbers of a row in each word: the one named first in `order` in the lowest four bits."""
    words = np.zeros((len(numbers), numbers.shape[1] // 8), np.uint32)
    for place, column in enumerate(order):
        words |= numbers[:, column::8].astype(np.uint32) << np.uint32(4 * place)
    return words.view(np.int32)


def _gptq(weight: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    groups = _GENERATOR.permutation(np.arange(weight.shape[1]) // GROUP)
    codes, zeros, scales, numbers = _coded(weight, groups)
    qweight = np.ascontiguousarray(words(codes.T).T)
    packed = {"qweight": qweight, "qzeros": words(zeros - 1), "scales": scales, "g_idx": groups.astype(np.int32)}
    return packed, numbers


def _awq(weight: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    codes, zeros, scales, numbers = _coded(weight, np.arange(weight.shape[1]) // GROUP)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return {"qweight": words(codes, order), "qzeros": words(zeros, order), "scales": scales}, numbers


def _bitsandbytes(weight: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    table = np.sort(_GENERATOR.uniform(-1, 1, 16)).astype(np.float32)
    flat = weight.reshape(-1, BLOCK)
    scales = np.abs(flat).max(1)
    codes = np.abs(flat[..., None] / scales[:, None, None] - table).argmin(-1)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "float32", "shape": list(weight.shape)}
    pairs = codes.reshape(-1, 2)
    packed = {
        "weight": (pairs[:, :1] << 4 | pairs[:, 1:]).astype(np.uint8),
        "weight.absmax": scales,
        "weight.quant_map": table,
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }
    return packed, (table[codes] * scales[:, None]).reshape(weight.shape)


def _fp8(weight: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    grid = tuple(-(-size // of) for size, of in zip(weight.shape, TILE))
    scales = _GENERATOR.uniform(0.002, 0.02, grid).astype(np.float32)
    spread = np.kron(scales, np.ones(TILE, np.float32))[: weight.shape[0], : weight.shape[1]]
    stored = (weight / spread).astype(ml_dtypes.float8_e4m3fn)
    return {"weight": stored, "weight_scale_inv": scales}, stored.astype(np.float32) * spread


PACK = {"bitsandbytes": _bitsandbytes, "gptq": _gptq, "awq": _awq, "fp8": _fp8}
