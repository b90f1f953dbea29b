"""Tiles of the attention kernel on TPUs by the planner's model, and whether the compiler takes them.

    python -m benchmarks.tiles [--compile] [--write]    # three minutes with --compile

Prints for each head width and length of a row the modelled time of each tile beside the best, on the chip and kind of
row where it is worst (`fit_jax.planning.tiles`). `--compile` compiles the kernel, forward and backward, with the chosen
tiles for v5e, v5p and v6e, which needs the TPU compiler (`pip install '.[tpu]'`); `--write` writes the table that the
kernel reads, `fit_jax/models/tile_table.py`.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from fit_jax.config import MeshConfig
from fit_jax.models import tile_table
from fit_jax.models.prefix_attention import prefix_attention
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.topology import Topology
from fit_jax.planning.tiles import FITS, LENGTHS, SIZES, regret, table

CHIPS = ("v5e:1x1", "v5p:1x1x1", "v6e:1x1")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(arguments)
    print(f"| head width | tokens | {' | '.join(map(str, SIZES))} |\n|{'---|' * (len(SIZES) + 2)}", flush=True)
    for width, largest in FITS.items():
        for tokens in LENGTHS:
            beside = " | ".join(f"{regret(width, tokens, size):.2f}" if size <= largest else "" for size in SIZES)
            print(f"| {width} | {tokens} | {beside} |", flush=True)
    if asked.write:
        Path(tile_table.__file__).write_text(written())
    refused = 0
    for chip in CHIPS if asked.compile else ():
        for width in FITS:
            # In the longest row the largest tiles and the longest lists of blocks.
            reason = refusal(chip, width, LENGTHS[-1])
            refused += reason is not None
            print(f"{chip}, heads of {width}: {reason or 'compiles'}", flush=True)
    return int(refused > 0)


def written() -> str:
    """The module that the kernel reads."""
    rows = "".join(f"    {width}: {sizes},\n" for width, sizes in table().items())
    return (
        '"""The largest tiles of the prefix-tree kernel on TPUs, by `python -m benchmarks.tiles --write`."""\n\n'
        f"# Tokens of a row, from each on.\nLENGTHS = {LENGTHS}\n# By head width, up to each, and length.\n"
        f"LARGEST = {{\n{rows}}}\n"
    )


def refusal(chip: str, width: int, tokens: int) -> str | None:
    """Why the compiler refuses the kernel with a window and a cap on the scores, forward and backward; None else."""
    mesh = make_mesh(MeshConfig(), Topology.parse(chip).devices())

    def shape(dtype, *sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    q, k = (shape(jnp.bfloat16, 1, tokens, heads, width) for heads in (4, 2))
    rule = [shape(jnp.int32, 1, tokens)] * 4

    def run(q, k, v, dy, *rule):
        options = {"scale": 0.1, "window": 1000, "softcap": 50.0, "platform": "tpu"}
        y, back = jax.vjp(lambda q, k, v: prefix_attention(q, k, v, *rule, **options)[0], q, k, v)
        return y, *back(dy)

    with jax.set_mesh(mesh):
        try:
            jax.jit(run).lower(q, k, k, q, *rule).compile()
        except jax.errors.JaxRuntimeError as error:
            return " ".join(str(error).split())[:200]
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
