"""Frozen kernels in 8 or 4 bits a weight (QLoRA: Dettmers et al. 2023): block scales, themselves stored in 8 bits.

A kernel (in, out) is cut into blocks of up to 64 inputs of one output. A block's scale is its largest magnitude; the
scales of an output are stored as whole 255ths of the largest among them (double quantisation), rounded up so that no
weight is clipped. nf4 codes are the quantiles of a normal distribution, two to a byte.
"""

import itertools
import math
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8, UInt8

Kind = Literal["int8", "nf4"]

BLOCK = 64

# The code values of NormalFloat4 (Dettmers et al. 2023, appendix E).
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


class FrozenParam(nnx.Variable):
    """A stored number that no optimizer touches."""


class Quantized(NamedTuple):
    """What stands for a kernel, as `QuantizedKernel` says."""

    codes: Int8[Array, "rows outputs"] | UInt8[Array, "rows outputs"]
    scales: UInt8[Array, "blocks outputs"]
    scale_max: Float[Array, " outputs"]


class QuantizedKernel(nnx.Module):
    """A kernel (in, out) as `codes`, `scales` (in / block, out) and `scale_max` (out,).

    int8 codes are (in, out); nf4 codes are (in / 2, out), the lower half-byte holding the earlier input.
    """

    def __init__(self, kernel: Float[Array, "*E inputs outputs"], kind: Kind) -> None:
        """Quantises `kernel`, or the kernels of several experts; the number of inputs must be even."""
        self.kind: Kind = kind
        one = partial(quantize, kind=kind)
        self.codes, self.scales, self.scale_max = map(FrozenParam, (jax.vmap(one) if kernel.ndim == 3 else one)(kernel))

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs of the kernel that the codes stand for."""
        rows, outputs = self.codes.shape
        return (rows * 2 if self.kind == "nf4" else rows), outputs

    def dequantized(self, dtype: DTypeLike) -> Float[Array, "*E inputs outputs"]:
        """The kernel, or the experts' kernels, that the codes stand for."""
        stored = Quantized(self.codes[...], self.scales[...], self.scale_max[...])
        one = partial(dequantize, self.kind, dtype=dtype)
        return (jax.vmap(one) if stored.codes.ndim == 3 else one)(stored)


def quantize(kernel: Float[Array, "inputs outputs"], kind: Kind) -> Quantized:
    """The codes and scales of a kernel."""
    inputs, outputs = kernel.shape
    block = math.gcd(inputs, BLOCK)
    blocks = kernel.astype(jnp.float32).reshape(inputs // block, block, outputs)
    largest = jnp.max(jnp.abs(blocks), axis=1)
    scale_max = jnp.max(largest, axis=0)
    unit = jnp.where(scale_max > 0, scale_max, 1.0)[None] / 255
    scales = jnp.ceil(largest / unit).clip(0, 255)
    relative = blocks / jnp.maximum(scales * unit, jnp.finfo(jnp.float32).tiny)[:, None]
    relative = relative.reshape(inputs, outputs).clip(-1, 1)
    if kind == "int8":
        codes = jnp.round(relative * 127).astype(jnp.int8)
    else:
        codes = jnp.zeros(relative.shape, jnp.uint8)
        for low, high in itertools.pairwise(NF4):  # the nearest code: one step up for each midpoint passed
            codes += (relative > (low + high) / 2).astype(jnp.uint8)
        pairs = codes.reshape(inputs // 2, 2, outputs)
        codes = pairs[:, 0] | (pairs[:, 1] << 4)
    return Quantized(codes, scales.astype(jnp.uint8), scale_max)


def dequantize(kind: Kind, stored: Quantized, dtype: DTypeLike) -> Float[Array, "inputs outputs"]:
    """The kernel that the codes stand for, in `dtype`."""
    codes, scales, scale_max = stored
    if kind == "int8":
        values = codes.astype(dtype) * jnp.asarray(1 / 127, dtype)
    else:
        halves = jnp.stack([codes & 15, codes >> 4], axis=1)
        # A chain of selects runs in registers, where a table lookup would be a gather over the whole kernel.
        values = jnp.full(halves.shape, NF4[0], dtype)
        for code, value in enumerate(NF4[1:], start=1):
            values = jnp.where(halves == code, jnp.asarray(value, dtype), values)
    blocks, outputs = scales.shape
    scale = (scales.astype(jnp.float32) * (scale_max / 255)[None]).astype(dtype)
    return (values.reshape(blocks, -1, outputs) * scale[:, None]).reshape(-1, outputs)
