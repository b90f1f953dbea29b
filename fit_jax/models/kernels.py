"""Which program computes attention: XLA's own operations, the prefix-tree kernel of TPUs and GPUs, or cuDNN."""

import math
import re
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jaxtyping import Array, Bool, Float

from fit_jax.errors import InputError
from fit_jax.parallel.config import ROWS

# With fewer queries a row than fill a register there is little to save: their scores are smaller than the keys.
LEAST_QUERIES = 16

CUDNN_HEAD_WIDTHS = range(8, 129, 8)
# The sums of wider heads do not fit into the registers of Hopper's backward pass.
HOPPER_WIDEST = 128
_HOPPER = re.compile(r"\bG?H\d+")  # NVIDIA H100 80GB HBM3, NVIDIA H200, NVIDIA GH200 480GB

OwnKernel = Literal["tpu", "gpu", "hopper"]

Kernel = Literal[OwnKernel, "xla", "cudnn"]


def choose(kind: str, q: Array, softcap: float | None, *, biased: bool = False, sinks: bool = False) -> Kernel:
    """What computes attention for these queries; `tpu`, `gpu` and `hopper` are the kernels of `prefix_attention`.

    What a kernel cannot compute falls to `xla`, whether it was asked for or not: biased keys, a few queries a row, as
    in decoding, rows that the mesh does not divide, fp32 on a GPU, and capped scores, wide heads or sinks by cuDNN.

    Args:
        kind: `DecoderConfig.attention`.
        q: Queries, (B, C, H, G).
        softcap: tanh cap on the scores.
        biased: Whether the keys' scores have biases.
        sinks: Whether heads have attention sinks.

    Raises:
        InputError: A kernel is asked for that the platform does not have.
    """
    mesh = jax.sharding.get_abstract_mesh()
    platform = platform_of(mesh)
    own: Kernel = "tpu" if platform == "tpu" else "gpu" if platform in ("gpu", "cuda") else "xla"
    if own == "gpu" and kind in ("auto", "cudnn"):  # ours compiles for GPUs, but has not been run on one
        own = "cudnn"
    elif kind == "cudnn" or (kind == "kernel" and own == "xla"):
        raise InputError(f"model.attention: {kind} does not run on {platform}; leave it `auto`, or set `xla`")
    elif own == "gpu":
        own = of_gpu(device_kind_of(mesh), q.shape[-1])
    divided = q.shape[0] % math.prod(mesh.shape.get(axis, 1) for axis in ROWS) == 0
    if kind == "xla" or own == "xla" or biased or q.shape[1] < LEAST_QUERIES or not divided:
        return "xla"
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    narrow = q.shape[-1] in CUDNN_HEAD_WIDTHS and softcap is None and not sinks
    fits = {"tpu": True, "gpu": half, "hopper": half, "cudnn": half and narrow}
    return own if fits[own] else "xla"


def cudnn(
    q_BCHG: Float[Array, "B C H G"],
    k_BTKG: Float[Array, "B T K G"],
    v_BTKG: Float[Array, "B T K G"],
    mask_BCT: Bool[Array, "B C T"],
    *,
    scale: float,
) -> Float[Array, "B C H G"]:
    """Attention under any mask by cuDNN's fused kernel, in half precision."""
    return jax.nn.dot_product_attention(
        q_BCHG, k_BTKG, v_BTKG, mask=mask_BCT[:, None], scale=scale, implementation="cudnn"
    )


def of_gpu(device_kind: str, head_width: int) -> Literal["gpu", "hopper"]:
    """Which of our kernels a GPU of this kind, as the driver names it, runs on heads of a width."""
    return "hopper" if head_width <= HOPPER_WIDEST and _HOPPER.search(device_kind) else "gpu"


def platform_of(mesh: AbstractMesh) -> str:
    """Of the mesh in context, which may be one that is only compiled for; without one of the default backend."""
    device = mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def device_kind_of(mesh: AbstractMesh) -> str:
    """Of its devices, as their driver names them."""
    device = mesh.abstract_device
    return (jax.devices()[0] if device is None else device).device_kind
