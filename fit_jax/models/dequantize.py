"""Weights that other programs quantised, as the numbers that they stand for, a slice at a time.

Each class reads one format from the tensors of a weight (outputs, inputs), which it asks for by their names' ends.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int, UInt8

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, parse_json
from fit_jax.models.families.quantization_fields import Quantization
from fit_jax.models.tensor_files import Tensor

# Brings the entries of one of a weight's tensors in these slices (none: all of it).
Part = Callable[..., np.ndarray]
# The tensor that describes a weight of bitsandbytes in 4 bits, by the kind of its numbers.
STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
# The scales of weights in FP8, by the programs that write them.
SCALES = ("weight_scale_inv", "weight_scale")
_LONGEST_STATE = 1 << 16
_SMALL_FLOATS = {np.dtype(kind) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e8m0fnu)}
_FLOATS = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in ("float32", "float16", "bfloat16")}
# AWQ's order of the eight columns of a word, by how many half-bytes each lies above the lowest.
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


class Misfit(Exception):
    """The tensors of a weight do not go together; what is wrong with them."""


@dataclass(frozen=True, eq=False)
class Weight(ABC):
    """A quantised weight.

    Attributes:
        shape: Outputs, inputs.
        dtype: What holds its numbers.
    """

    shape: tuple[int, int]
    dtype: np.dtype

    @staticmethod
    @abstractmethod
    def of(tensors: Mapping[str, Tensor], part: Part, said: Quantization) -> "Weight":
        """The weight that tensors stand for.

        Args:
            tensors: By their names' ends.
            part: Reads them.
            said: What the model's config says of them.

        Raises:
            Misfit: They do not go together.
        """

    @abstractmethod
    def read(self, part: Part, rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        """Its numbers in these rows and columns, fp32."""


@dataclass(frozen=True, eq=False)
class Blocks4(Weight):
    """bitsandbytes in 4 bits (QLoRA, Dettmers et al. 2023): one scale for each run of numbers, row after row.

    A byte holds two numbers, the higher half-byte first, each an index into `codes`. The scales may be quantised in
    turn, to a byte that is an index into `scale_codes`, times a scale of its own, plus an offset.
    """

    item_bytes: int
    block: int
    codes: Float[np.ndarray, "16"]
    scale_codes: Float[np.ndarray, "256"] | None
    scale_scales: Float[np.ndarray, " n"] | None
    scale_block: int
    offset: float

    @staticmethod
    def of(tensors: Mapping[str, Tensor], part: Part, said: Quantization) -> "Blocks4":
        """As `Weight.of`."""
        name = next(state for state in STATES if state in tensors)
        if math.prod(tensors[name].shape) > _LONGEST_STATE or tensors[name].dtype != np.uint8:
            raise Misfit(f"{name} is no description")
        try:
            state = parse_json(part(name).tobytes().decode())
        except ValueError as error:
            raise Misfit(f"{name} holds no JSON") from error
        if not isinstance(state, dict):
            raise Misfit(f"{name} holds no object")
        try:
            return Blocks4._of(Fields(state, name), tensors, part)
        except InputError as error:
            raise Misfit(str(error).partition("; ")[0]) from error

    @staticmethod
    def _of(fields: Fields, tensors: Mapping[str, Tensor], part: Part) -> "Blocks4":
        sizes = fields.values.get("shape")
        sizes = sizes if isinstance(sizes, list) else []
        given = Fields({f"shape[{place}]": size for place, size in enumerate(sizes)}, fields.where)
        shape = tuple(given.whole(name, 1, 2**31) for name in given.values)
        block = fields.whole("blocksize", 2, 1 << 16)
        nested = "weight.nested_absmax" in tensors
        count, item = math.prod(shape), tensors["weight"].dtype.itemsize
        blocks = -(-count // block)
        scale_block = fields.whole("nested_blocksize", 1, 1 << 16, 256)
        if (
            len(shape) != 2
            or block % (2 * item)
            or math.prod(tensors["weight"].shape) * item != -(-count // 2)
            or tensors["weight.absmax"].shape != (blocks,)
            or tensors["weight.absmax"].dtype != (np.uint8 if nested else np.float32)
            or tensors["weight.quant_map"].shape != (16,)
            or nested != ("weight.nested_quant_map" in tensors)
            or (nested and tensors["weight.nested_absmax"].shape != (-(-blocks // scale_block),))
            or (nested and tensors["weight.nested_quant_map"].shape != (256,))
        ):
            raise Misfit("its tensors are of other sizes than its state says")
        return Blocks4(
            shape,
            _FLOATS[fields.choice("dtype", _FLOATS)],
            item,
            block,
            part("weight.quant_map").astype(np.float32),
            part("weight.nested_quant_map").astype(np.float32) if nested else None,
            part("weight.nested_absmax").astype(np.float32) if nested else None,
            scale_block,
            fields.number("nested_offset", -1e30, 1e30) if nested else 0.0,
        )

    def read(self, part: Part, rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        """As `Weight.read`."""
        width = self.shape[1]
        first, last = rows.start * width, rows.stop * width
        blocks = slice(first // self.block, -(-last // self.block))
        begin, end = blocks.start * self.block, min(blocks.stop * self.block, math.prod(self.shape))
        items = slice(begin // 2 // self.item_bytes, -(-end // 2 // self.item_bytes))
        packed = part("weight", items).reshape(-1).view(np.uint8)
        numbers = self.codes[np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: end - begin]]
        scales = part("weight.absmax", blocks)
        if self.scale_codes is not None and self.scale_scales is not None:
            own = self.scale_scales[np.arange(blocks.start, blocks.stop) // self.scale_block]
            scales = self.scale_codes[scales] * own + np.float32(self.offset)
        numbers *= np.repeat(scales, self.block)[: end - begin]
        return numbers[first - begin : last - begin].reshape(-1, width)[:, columns]


@dataclass(frozen=True, eq=False)
class Rows8(Weight):
    """bitsandbytes in 8 bits (LLM.int8(), Dettmers et al. 2022): one scale for each output, of the largest number."""

    @staticmethod
    def of(tensors: Mapping[str, Tensor], part: Part, said: Quantization) -> "Rows8":
        """As `Weight.of`."""
        shape = tensors["weight"].shape
        scales = tensors["SCB"]
        if tensors["weight"].dtype != np.int8 or len(shape) != 2 or scales.shape != shape[:1] or not _floats(scales):
            raise Misfit("its weight and SCB are of other sizes or dtypes")
        if "weight_format" in tensors and part("weight_format").any():
            raise Misfit("it is stored in the order of a GPU's tiles")
        return Rows8(shape, np.dtype(np.float32))

    def read(self, part: Part, rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        """As `Weight.read`."""
        scales = part("SCB", rows).astype(np.float32) / np.float32(127)
        return part("weight", rows, columns).astype(np.float32) * scales[:, None]


@dataclass(frozen=True, eq=False)
class Words(Weight):
    """GPTQ (Frantar et al. 2023) and AWQ (Lin et al. 2024): groups of inputs share a scale and a zero of an output.

    32-bit words hold several numbers: GPTQ's of following inputs, AWQ's of eight outputs in an order of its own.

    Attributes:
        bits: Of a number.
        groups: The group of each input.
        awq: Whether it is AWQ.
        one_below: Whether zeros are stored less one, as in GPTQ's first format.
    """

    bits: int
    groups: Int[np.ndarray, " inputs"]
    awq: bool
    one_below: bool

    @staticmethod
    def of(tensors: Mapping[str, Tensor], part: Part, said: Quantization) -> "Words":
        """As `Weight.of`."""
        awq, each = said.method == "awq", 32 // said.bits
        words, scales, zeros = (tensors[end] for end in ("qweight", "scales", "qzeros"))
        order = tensors.get("g_idx")
        if len(words.shape) != 2 or len(scales.shape) != 2 or not math.prod(words.shape):
            raise Misfit("its qweight or scales are no matrices")
        count, outputs = scales.shape
        inputs = words.shape[0] * (1 if awq else each)
        if (
            outputs % each
            or words.shape != ((inputs, outputs // each) if awq else (inputs // each, outputs))
            or zeros.shape != (count, outputs // each)
            or {words.dtype, zeros.dtype} != {np.dtype(np.int32)}
            or not _floats(scales)
            or (order is not None and (order.shape != (inputs,) or order.dtype != np.int32))
        ):
            raise Misfit(f"its tensors are of other sizes or dtypes than {said.bits} bits ask for")
        group = said.group or inputs
        if order is None and count != -(-inputs // group):
            raise Misfit(f"it has {count} groups of {inputs} inputs, not groups of {group}")
        groups = part("g_idx") if order is not None else np.arange(inputs, dtype=np.int32) // np.int32(group)
        if not 0 <= groups.min() <= groups.max() < count:
            raise Misfit(f"its g_idx names groups beyond its {count}")
        return Words((outputs, inputs), np.dtype(np.float32), said.bits, groups, awq, said.one_below)

    def read(self, part: Part, rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        """As `Weight.read`."""
        each, groups = 32 // self.bits, self.groups[columns]
        used = slice(int(groups.min()), int(groups.max()) + 1)
        order = _AWQ_ORDER if self.awq else range(each)
        outs, shift = slice(rows.start // each, -(-rows.stop // each)), rows.start % each
        wanted = slice(shift, shift + rows.stop - rows.start)
        zeros = part("qzeros", used, outs)
        if self.one_below:  # in every number of a word at once, as it was taken away
            zeros = (zeros.view(np.uint32) + np.uint32(sum(1 << bit for bit in range(0, 32, self.bits)))).view(np.int32)
        zeros = _unpacked(zeros, self.bits, order)[:, wanted]
        if self.awq:
            numbers = _unpacked(part("qweight", columns, outs), self.bits, order)[:, wanted]
        else:
            words = part("qweight", slice(columns.start // each, -(-columns.stop // each)), rows)
            begin = columns.start % each
            numbers = _unpacked(words.T, self.bits, order).T[begin : begin + len(groups)]
        scales = part("scales", used, rows).astype(np.float32)
        groups = groups - used.start
        return ((numbers.astype(np.float32) - zeros[groups]) * scales[groups]).T


@dataclass(frozen=True, eq=False)
class Scaled8(Weight):
    """FP8: one scale for each tile of outputs and inputs (DeepSeek-V3, 2024), for each output, or for all numbers.

    Attributes:
        scales: The name's end of the scales.
        tile: Outputs and inputs that share one; of a weight with a single scale, all.
    """

    scales: str
    tile: tuple[int, int]

    @staticmethod
    def of(tensors: Mapping[str, Tensor], part: Part, said: Quantization) -> "Scaled8":
        """As `Weight.of`."""
        name = next(end for end in SCALES if end in tensors)
        weight, scales = tensors["weight"], tensors[name]
        shape, of_tiles = weight.shape, said.tile or weight.shape
        if (
            len(shape) != 2
            or weight.dtype != ml_dtypes.float8_e4m3fn
            or not (_floats(scales) or scales.dtype == np.uint8)
        ):
            raise Misfit("its weight is no matrix in FP8 (E4M3), or its scales are no numbers")
        shape = weight.shape[0], weight.shape[1]
        of_tiles = said.tile or shape
        if math.prod(scales.shape) == 1:
            tile = shape
        elif scales.shape == tuple(-(-n // size) for n, size in zip(shape, of_tiles)):
            tile = of_tiles
        elif scales.shape in ((shape[0],), (shape[0], 1)):
            tile = (1, shape[1])
        else:
            raise Misfit(f"its scales {scales.shape} are not one for each tile of {of_tiles[0]} x {of_tiles[1]}")
        return Scaled8(shape, np.dtype(np.float32), name, tile)

    def read(self, part: Part, rows: slice, columns: slice) -> Float[np.ndarray, "rows columns"]:
        """As `Weight.read`."""
        scales = part(self.scales)
        if scales.dtype == np.uint8:  # exponents
            scales = scales.view(ml_dtypes.float8_e8m0fnu)
        grid = scales.astype(np.float32).reshape(-(-self.shape[0] // self.tile[0]), -(-self.shape[1] // self.tile[1]))
        own = [np.arange(s.start, s.stop) // size for s, size in zip((rows, columns), self.tile)]
        return part("weight", rows, columns).astype(np.float32) * grid[own[0]][:, own[1]]


def _floats(tensor: Tensor) -> bool:
    return np.issubdtype(tensor.dtype, np.floating) or tensor.dtype in _SMALL_FLOATS


def _unpacked(words: Int[np.ndarray, "n words"], bits: int, order: Sequence[int]) -> UInt8[np.ndarray, "n numbers"]:
    """The numbers of 32-bit words, from those in the lowest bits on or in another order."""
    shifts = np.array(order, np.uint32) * np.uint32(bits)
    numbers = (np.ascontiguousarray(words).view(np.uint32)[..., None] >> shifts) & np.uint32(2**bits - 1)
    return numbers.astype(np.uint8).reshape(len(words), -1)
