"""Checkpoints whose experts are stored in MXFP4, as gpt-oss comes: read as the plain tensors that they stand for.

A kernel (E, in, out) is stored as `blocks` (E, out, in / 32, 16), bytes of two 4-bit numbers each, the lower half-byte
first, and `scales` (E, out, in / 32), whose byte s is a factor of 2^(s - 127) on 32 inputs of one output (OCP
Microscaling Formats 1.0; a scale of 255 is NaN).
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path

import ml_dtypes
import numpy as np
from jaxtyping import Float, UInt8

from fit_jax.errors import InputError
from fit_jax.foreign import named
from fit_jax.models.tensor_files import Tensor, TensorBlocks, TensorFiles

# Inputs that share a scale, and the bytes that hold them.
GROUP, _BYTES = 32, 16
_BLOCKS, _SCALES = "_blocks", "_scales"
# What the 4-bit numbers stand for: a sign, two bits of exponent and one of mantissa.
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_POSITIVE, *(-value for value in _POSITIVE)])


def unpacked(
    blocks: UInt8[np.ndarray, "*n groups 16"], scales: UInt8[np.ndarray, "*n groups"], dtype: np.dtype
) -> Float[np.ndarray, "*n inputs"]:
    """The numbers that blocks and scales stand for; exact in bfloat16 and in float32."""
    pairs = _pairs(dtype)[(scales.astype(np.uint16) << 8)[..., None] | blocks]
    return pairs.view(dtype).reshape(*scales.shape[:-1], -1)


@cache
def _pairs(dtype: np.dtype) -> np.ndarray:
    """The two numbers of every byte under every scale, as one item each: index scale * 256 + byte."""
    halves = _VALUES[np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=1)]
    factors = np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan)
    with np.errstate(over="ignore"):  # the largest are beyond what these dtypes hold
        table = (factors[:, None, None] * halves).astype(np.float32).astype(dtype)
    return np.ascontiguousarray(table).view(f"u{2 * dtype.itemsize}").reshape(-1)


class PackedFiles(TensorFiles):
    """The tensors of a folder, where `NAME_blocks` and `NAME_scales` are seen as one bfloat16 tensor `NAME`."""

    def __init__(self, folder: Path, renamed: Callable[[str], str | None] = lambda name: name) -> None:
        """As `TensorFiles`.

        Raises:
            InputError: Blocks and scales are of shapes or dtypes that do not go together.
        """
        super().__init__(folder, renamed)
        self._packed: dict[str, tuple[Tensor, Tensor]] = {}
        for stored in [name for name in self.tensors if name.endswith(_BLOCKS)]:
            name = stored.removesuffix(_BLOCKS)
            if name + _SCALES not in self.tensors:
                continue
            blocks, scales = self.tensors.pop(stored), self.tensors.pop(name + _SCALES)
            if (
                {blocks.dtype, scales.dtype} != {np.dtype(np.uint8)}
                or len(scales.shape) != 3
                or blocks.shape != (*scales.shape, _BYTES)
            ):
                raise InputError(
                    f"{named(blocks.file)}: {stored} {blocks.shape} of {blocks.dtype} and its scales {scales.shape} of "
                    f"{scales.dtype} are no MXFP4; fetch the files again"
                )
            experts, outputs, groups = scales.shape
            self.tensors[name] = Tensor((experts, groups * GROUP, outputs), np.dtype(ml_dtypes.bfloat16), blocks.file)
            self._packed[name] = blocks, scales

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """As `TensorFiles.read`, a packed tensor unpacked."""
        if name not in self._packed:
            return super().read(name, index)
        tensor = self.tensors[name]
        experts, inputs, outputs = index or (slice(None),) * 3
        first, last, _ = inputs.indices(tensor.shape[1])
        groups = slice(first // GROUP, -(-last // GROUP))  # whole ones, of which some inputs may not be asked for
        start = first - groups.start * GROUP
        numbers = range(*experts.indices(tensor.shape[0]))
        values = np.empty((len(numbers), last - first, len(range(*outputs.indices(tensor.shape[2])))), tensor.dtype)
        for value, number in zip(values, numbers):  # one at a time, so that no more than one is held twice
            one = slice(number, number + 1), outputs, groups
            blocks, scales = (super(PackedFiles, self).read(name + part, one) for part in (_BLOCKS, _SCALES))
            value[:] = unpacked(blocks[0], scales[0], tensor.dtype)[:, start : start + last - first].T
        return values

    def as_stored(self, name: str) -> dict[str, tuple[Tensor, TensorBlocks]]:
        """The tensors that stand for this one in the files, with what brings them; empty where it is not packed."""

        def rows(part: str, count: int) -> Iterable[np.ndarray]:
            return (super(PackedFiles, self).read(part, (slice(n, n + 1),)) for n in range(count))

        if name not in self._packed:
            return {}
        parts = zip((name + _BLOCKS, name + _SCALES), self._packed[name])
        return {part: (tensor, partial(rows, part, tensor.shape[0])) for part, tensor in parts}
