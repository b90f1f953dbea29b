"""Tiles of the prefix-tree kernel on TPUs: which of them takes least time, by the work of the blocks that it visits.

The times are modelled: matrix products at a share of the peak, or bytes at the bandwidth, whichever takes longer, and
so much for each turn of the grid, which an empty block takes too. No TPU has confirmed them.
"""

from functools import cache

import numpy as np

from fit_jax.models.prefix_blocks import Tiles
from fit_jax.parallel.topology import ACCELERATORS
from fit_jax.planning.attention import Visits, layer_work, visits_by
from fit_jax.planning.roofline import MATMUL_SHARE

KINDS = ("v5e", "v5p", "v6e")
# Widths of heads, and the largest size of which the compiler finds room for the backward pass in a chip's vector memory
# (`python -m benchmarks.tiles --compile`).
FITS = {64: 1024, 128: 1024, 256: 512, 512: 512}
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
SIZES = (256, 512, 1024)
# Seconds of a turn of a pipelined grid; an assumption on which the choice between sizes rests.
TURN = 0.35e-6
# Tokens of an example in the packed rows that count beside rows of one text.
EXAMPLE = 256
_PASSES, _BF16 = 3, 2


def seconds(kind: str, head_width: int, tokens: int, example: int, size: int) -> float:
    """Of the three passes of one head in bf16 over a row of examples of so many tokens, in blocks of `size` squared."""
    chip, found = ACCELERATORS[kind], _visits(tokens, example, size)
    work = layer_work(found, 1, 1, head_width, _BF16, forwards=1, backward=True)
    turns = _PASSES * (found.queries // size) * (found.keys // size)
    return max(work.flops / (chip.flops * MATMUL_SHARE), work.bytes / chip.bandwidth) + turns * TURN


def regret(head_width: int, tokens: int, size: int) -> float:
    """Time beside that of the best size, where a chip and a kind of row, packed or of one text, makes most of it."""
    cases = [(kind, head_width, tokens, example) for kind in KINDS for example in (EXAMPLE, tokens)]
    return max(seconds(*case, size) / min(seconds(*case, other) for other in _fitting(head_width)) for case in cases)


def table() -> dict[int, tuple[int, ...]]:
    """Of each head width, the size of least regret for each of `LENGTHS`; one for all chips."""
    return {
        width: tuple(min(_fitting(width), key=lambda size: regret(width, tokens, size)) for tokens in LENGTHS)
        for width in FITS
    }


def _fitting(head_width: int) -> list[int]:
    return [size for size in SIZES if size <= FITS[head_width]]


@cache
def _visits(tokens: int, example: int, size: int) -> Visits:
    index = np.arange(tokens, dtype=np.int32)
    ends = index // example * example + example
    return visits_by(np.stack([index, index])[None], np.stack([ends, index])[None], Tiles(size, size))
