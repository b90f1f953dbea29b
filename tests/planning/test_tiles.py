from itertools import pairwise

import pytest

from benchmarks.tiles import written
from fit_jax.models import tile_table
from fit_jax.models.prefix_attention_tpu import tiles
from fit_jax.models.prefix_blocks import Tiles
from fit_jax.planning.tiles import FITS, LENGTHS, SIZES, regret, seconds, table


def test_the_kernel_reads_the_table_of_the_planner():
    with open(tile_table.__file__) as file:
        assert file.read() == written()
    assert table() == tile_table.LARGEST
    assert LENGTHS == tile_table.LENGTHS


@pytest.mark.parametrize(("width", "largest"), FITS.items())
def test_no_size_that_fits_has_less_regret(width, largest):
    for tokens, chosen in zip(LENGTHS, table()[width]):
        assert chosen <= largest
        assert all(regret(width, tokens, size) >= regret(width, tokens, chosen) for size in SIZES if size <= largest)


def test_time_is_of_the_blocks_that_are_visited_and_of_every_turn():
    for chip in ("v5e", "v6e"):
        packed, whole = (seconds(chip, 128, 4096, example, 512) for example in (256, 4096))
        assert packed < whole
        # Twice the tokens: four times the blocks and turns of one text, but for its masked diagonal.
        assert all(3 < seconds(chip, 128, 2 * T, 2 * T, 512) / seconds(chip, 128, T, T, 512) < 4 for T in LENGTHS[:3])


def test_rows_and_heads_find_their_place_in_the_table():
    assert tiles(16384, 16384, 128) == tiles(16384, 16384, 96) == Tiles(1024, 1024)
    assert tiles(16384, 16384, 512) == tiles(16384, 16384, 1000) == Tiles(512, 512)
    assert tiles(2048, 2048, 200) == Tiles(512, 512)
    assert tiles(512, 512, 64) == Tiles(512, 512)
    assert tiles(64, 4096, 64) == Tiles(64, 1024)
    for shorter, longer in pairwise(LENGTHS):
        assert tiles(shorter, shorter, 256).keys <= tiles(longer, longer, 256).keys
