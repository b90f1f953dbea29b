"""Fused attention for the accelerators: splash on TPU, cuDNN on GPU; no array of all scores exists."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from fit_jax.errors import InputError
from fit_jax.parallel.config import CONTEXT, ROWS, TENSOR

# Tokens of a tile, the first that divides the row. Splash wants multiples of 128; larger tiles mean fewer passes over
# the keys, and 512 still leaves room in the chip's vector memory for both operands of the backward pass.
BLOCKS = (512, 384, 256, 128)

CUDNN_HEAD_WIDTHS = range(8, 129, 8)


def choose(
    kind: str, q: Array, sequences: bool, window: int | Array | None, softcap: float | None, *, biased: bool = False
) -> str:
    """The kernel for these queries: `xla`, `splash` or `cudnn`.

    A kernel that cannot compute what is asked gives way to `xla`, whether it was asked for or not: rows that branch, a
    few target positions and a window traced by a scan over layers are beyond splash, fp32 and capped scores beyond
    cuDNN, and biased keys beyond both.

    Args:
        kind: `auto`, or the kernel asked for.
        q: Queries, (B, C, H, G).
        sequences: Whether they are all tokens of rows whose items do not branch.
        window: Tokens a query sees.
        softcap: tanh cap on the scores.
        biased: Whether the keys' scores have biases.

    Raises:
        InputError: A kernel is asked for that the platform does not have.
    """
    # The mesh in context may be one that is only compiled for; without one the default backend runs the program.
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    platform = jax.default_backend() if device is None else device.platform
    own = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}.get(platform, "xla")
    if kind not in ("auto", "xla", own):
        raise InputError(
            f"model.attention: {kind} does not run on {platform}; leave it `auto`, or set `xla` or `{own}`"
        )
    if kind == "xla" or own == "xla" or biased:
        return "xla"
    if own == "splash":
        whole_blocks = q.shape[1] % (BLOCKS[-1] * mesh.shape.get(CONTEXT, 1)) == 0
        fits = sequences and whole_blocks and (window is None or isinstance(window, int))
    else:
        fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] in CUDNN_HEAD_WIDTHS and softcap is None
    return own if fits else "xla"


def splash(
    q_BTHG: Float[Array, "B T H G"],
    k_BTKG: Float[Array, "B T K G"],
    v_BTKG: Float[Array, "B T K G"],
    positions_BT: Int[Array, "B T"],
    visible_until_BT: Int[Array, "B T"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    interpret: bool = False,
) -> Float[Array, "B T H G"]:
    """Causal attention of packed sequences by the TPU kernel, under `shard_map` on the mesh in context.

    Each item of a row must be one sequence, which starts where its position is 0; a token then sees the past of its own
    sequence. Rows whose items branch break this and come out as NaN rather than wrong.

    Args:
        q_BTHG: Queries of all tokens of the rows.
        k_BTKG: Keys.
        v_BTKG: Values.
        positions_BT: Position of each token in its own sequence; 0 in padding.
        visible_until_BT: The prefix-tree rule's ends (`Scope`), checked against the positions.
        scale: Factor on the scores.
        window: Tokens a query sees, itself included; None means all.
        softcap: tanh cap on the scores; None means none.
        interpret: Run the kernel's body as plain JAX, on any platform.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shards = {axis: mesh.shape.get(axis, 1) for axis in (TENSOR, CONTEXT)}
    heads = TENSOR if shards[TENSOR] > 1 and k_BTKG.shape[2] % shards[TENSOR] == 0 else None
    kernel = _kernel(
        q_BTHG.shape[2], q_BTHG.shape[1], shards[TENSOR] if heads else 1, shards[CONTEXT], window, softcap, interpret
    )
    segments_BT = jnp.cumsum(positions_BT == 0, axis=1, dtype=jnp.int32)
    run: Any = _run
    if not mesh.empty:
        spec_q, spec_k = P(ROWS, heads, CONTEXT, None), P(ROWS, heads, None, None)
        spec_kernel = kernel.manual_sharding_spec(NamedSharding(mesh, P(heads, CONTEXT)))
        specs = (spec_kernel, spec_q, spec_k, spec_k, P(ROWS, CONTEXT), P(ROWS, None))
        run = jax.shard_map(_run, mesh=mesh, in_specs=specs, out_specs=spec_q, check_vma=False)
    q, k, v = (x.swapaxes(1, 2) for x in (q_BTHG * jnp.asarray(scale, q_BTHG.dtype), k_BTKG, v_BTKG))
    y_BTHG = run(kernel, q, k, v, segments_BT, segments_BT).swapaxes(1, 2).astype(q_BTHG.dtype)
    valid_B = single_paths(segments_BT, visible_until_BT)
    return jnp.where(valid_B[:, None, None, None], y_BTHG, jnp.nan)


def single_paths(segments_BT: Int[Array, "B T"], visible_until_BT: Int[Array, "B T"]) -> Bool[Array, " B"]:
    """Whether every token of a row is visible to the end of its segment exactly, or is padding."""
    T = segments_BT.shape[1]
    last_BT = segments_BT != jnp.pad(segments_BT[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    ends = jnp.where(last_BT, jnp.arange(1, T + 1, dtype=jnp.int32)[None], T)
    end_BT = jax.lax.cummin(ends, axis=1, reverse=True)
    return jnp.all((visible_until_BT == end_BT) | (visible_until_BT == 0), axis=1)


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


def _run(kernel: Any, q: Array, k: Array, v: Array, segments_q: Array, segments_k: Array) -> Array:
    """The kernel on each row of a shard; heads before tokens."""
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SegmentIds

    return jax.vmap(lambda q, k, v, a, b: kernel(q, k, v, SegmentIds(a, b)))(q, k, v, segments_q, segments_k)


def _kernel(
    heads: int,
    tokens: int,
    head_shards: int,
    token_shards: int,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (tokens, tokens)
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    q_block, k_block = _block(tokens // token_shards), _block(tokens)
    blocks = kernel.BlockSizes(
        block_q=q_block,
        block_kv=k_block,
        block_q_dkv=q_block,
        block_kv_dkv=k_block,
        block_q_dq=q_block,
        block_kv_dq=k_block,
    )
    return kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=blocks,
        head_shards=head_shards,
        q_seq_shards=token_shards,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )


def _block(tokens: int) -> int:
    """The largest tile that divides the row."""
    return next(block for block in BLOCKS if tokens % block == 0)
