"""Attention alone, forward and backward, on one GPU: the prefix-tree kernel beside cuDNN and XLA.

    python -m benchmarks.attention [--repeats 20]
    python -m benchmarks.attention --shape tiny --repeats 1      on a CPU, the kernel in interpret mode

Llama-3.1-8B's heads, 32 of queries and 8 of keys of width 128, bf16, one row of 2,048 to 16,384 tokens: one text,
packed examples of 256 tokens, and a text of half the row that branches of 256 tokens share. Sides: the kernel as
`model.attention: kernel` takes it and as Triton lowers it, cuDNN with the mask as an array, cuDNN causal, which knows
no packing and so has packed examples as rows of their own and no branches, and XLA. Medians in ms; the share of the
peak counts nine products (two forward, seven backward) of the pairs of tokens that see each other. Prints a table.
"""

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import PEAK
from fit_jax.models import kernels
from fit_jax.models.attention import Scope, attention
from fit_jax.models.prefix_attention import prefix_attention

EXAMPLE = 256
PRODUCTS = 9


class Shape(NamedTuple):
    """Heads, and lengths of rows."""

    heads: int
    kv_heads: int
    width: int
    dtype: str
    lengths: tuple[int, ...]
    gpu: bool


SHAPES = {
    "llama31_8b": Shape(32, 8, 128, "bfloat16", (2048, 4096, 8192, 16384), gpu=True),
    "tiny": Shape(2, 1, 64, "float32", (512,), gpu=False),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama31_8b")
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args(arguments)
    shape = SHAPES[asked.shape]
    if shape.gpu and jax.default_backend() != "gpu":
        print("no GPU that JAX can use; with --shape tiny the benchmark runs on a CPU", file=sys.stderr)
        return 2
    print("| row | tokens | side | ms | share of the peak |\n|---|---|---|---|---|", flush=True)
    for tokens in shape.lengths:
        q, k = (jnp.ones((1, tokens, heads, shape.width), shape.dtype) for heads in (shape.heads, shape.kv_heads))
        inputs = [jax.random.normal(jax.random.key(n), x.shape, x.dtype) for n, x in enumerate((q, k, k, q))]
        for row, scope in rows_of(tokens).items():
            seen = int(scope.mask(None).sum())
            flops = PRODUCTS * 2 * seen * shape.heads * shape.width
            for side, run in sides(shape, row, scope).items():
                ms = 1e3 * seconds(run, inputs, asked.repeats)
                share = f"{flops / ms * 1e3 / PEAK:.1%}" if shape.gpu else ""
                print(f"| {row} | {tokens} | {side} | {ms:.3f} | {share} |", flush=True)
    return 0


def rows_of(tokens: int) -> dict[str, Scope]:
    """What the tokens of a row see, by the kind of row."""
    index = np.arange(tokens, dtype=np.int32)
    own, half = (index // EXAMPLE + 1) * EXAMPLE, tokens // 2
    shared = index < half
    rows = {
        "one text": (index, np.full_like(index, tokens)),
        "packed": (index % EXAMPLE, own),
        "branches": (np.where(shared, index, half + index % EXAMPLE), np.where(shared, tokens, own)),
    }
    return {name: Scope.of_rows(*(jnp.asarray(x, jnp.int32)[None] for x in row)) for name, row in rows.items()}


def sides(shape: Shape, row: str, scope: Scope) -> dict[str, Callable[..., Any]]:
    """Attention of queries, keys and values by each side that can compute it."""
    scale, found = shape.width**-0.5, {}
    platforms = ["tpu"]
    if shape.gpu:
        platforms = sorted({"gpu", kernels.of_gpu(jax.devices()[0].device_kind, shape.width)})
        found["cuDNN, mask"] = lambda q, k, v: kernels.cudnn(q, k, v, scope.mask(None), scale=scale)
    if row != "branches":
        found["causal" if not shape.gpu else "cuDNN, causal"] = lambda q, k, v: causal(shape, row, q, k, v)
    rule = scope.query_index, scope.query_positions, scope.key_positions, scope.visible_until
    for platform in platforms:
        options: Any = {"scale": scale, "platform": platform, "interpret": not shape.gpu}
        found[f"the kernel, {platform}"] = lambda q, k, v, o=options: prefix_attention(q, k, v, *rule, **o)[0]
    found["XLA"] = lambda q, k, v: attention(q, k, v, scope, scale=scale, kind="xla")
    return found


def causal(shape: Shape, row: str, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal attention by cuDNN, on a CPU by XLA; packed examples are rows of their own."""
    apart = [x.reshape(-1, EXAMPLE, *x.shape[2:]) if row == "packed" else x for x in (q, k, v)]
    implementation = "cudnn" if shape.gpu else "xla"
    return jax.nn.dot_product_attention(*apart, is_causal=True, implementation=implementation).reshape(q.shape)


def seconds(run: Callable[..., Any], inputs: list[jax.Array], repeats: int) -> float:
    """Median time of a forward and backward pass."""

    @jax.jit
    def step(q: jax.Array, k: jax.Array, v: jax.Array, dy: jax.Array) -> Any:
        y, back = jax.vjp(run, q, k, v)
        return y, back(dy)

    jax.block_until_ready(step(*inputs))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(step(*inputs))
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
