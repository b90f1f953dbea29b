"""The kernel's work is counted from the blocks that it visits: against counts by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fit_jax.models.linear_config import LinearConfig
from fit_jax.models.prefix_attention_tpu import tiles
from fit_jax.models.prefix_blocks import Tiles
from fit_jax.planning.attention import Visits, Work, kernel_work, layer_work, visits, visits_by

T = 2048  # four blocks of 512


def row(*spans: tuple[int, int, int]) -> np.ndarray:
    """Keys of a row whose spans of tokens (from, to) are seen until a third index; positions as in one text."""
    ends = np.zeros(T, np.int32)
    for start, stop, end in spans:
        ends[start:stop] = end
    return np.stack([ends, np.arange(T, dtype=np.int32)])[None]


BRANCHES = [(512 + 384 * n, 512 + 384 * (n + 1), 512 + 384 * (n + 1)) for n in range(4)]


@pytest.mark.parametrize(
    ("keys", "window", "by_query", "by_key"),
    [
        (row((0, T, T)), None, 1 + 2 + 3 + 4, 4 + 3 + 2 + 1),
        (row((0, 1024, 1024), (1024, T, T)), None, 1 + 2 + 1 + 2, 2 + 1 + 2 + 1),
        # The second branch goes from the second block into the third, the third from there into the fourth.
        (row((0, 512, T), *BRANCHES), None, 1 + 2 + 3 + 3, 4 + 2 + 2 + 1),
        (row((0, 512, 512)), None, 1, 1),  # the rest is padding
        (row((0, T, T)), 512, 1 + 2 + 2 + 2, 2 + 2 + 2 + 1),
    ],
)
def test_visits_of_rows_are_those_counted_by_hand(keys, window, by_query, by_key):
    index = np.arange(T, dtype=np.int32)
    queries = np.stack([index, index])[None]
    assert visits_by(queries, keys, Tiles(512, 512), window) == Visits(Tiles(512, 512), T, T, by_query, by_key)
    own = tiles(T, T, 128)
    assert visits(queries, keys, 128, "tpu", window) == visits_by(queries, keys, own, window)


def test_a_visit_costs_its_products_and_what_it_loads():
    """Two heads of width 8 and one of keys, numbers of 2 bytes; blocks of 16 queries and 32 keys."""
    found = Visits(Tiles(16, 32), 48, 64, by_query=5, by_key=4)
    product, token = 2 * 16 * 32 * 8, 2 * 8
    once = layer_work(found, 2, 1, 8, 2, forwards=1, backward=False)
    loaded = 5 * 2 * 32 * token  # keys and values of five blocks
    assert once == Work(2 * 2 * 5 * product, 2 * (48 * (2 * token + 4) + loaded))
    step = layer_work(found, 2, 1, 8, 2, forwards=2, backward=True)
    queries = 48 * (3 * token + 8) + loaded
    keys = 4 * 16 * (2 * token + 8)
    assert step.flops == 2 * (2 * 2 * 5 + 3 * 5 + 4 * 4) * product
    assert step.bytes == 2 * once.bytes + 2 * (queries + keys) + 64 * 4 * token


def test_layers_of_a_row_count_their_own_queries_and_windows(planned):
    model = planned("--model.window", "1024", "--model.sliding_layers", "[1]")[0].model
    found = kernel_work(model, 3, 2 * T, 64, lambda width: "tpu", backward=False)
    pairs = (10 + 7) * 1024 * 1024 + 4 * 64 * 1024  # whole, sliding, and the last at 64 targets
    assert found.flops == 3 * model.heads * 2 * 2 * pairs * model.head_width


def test_layers_that_keep_a_state_run_no_kernel(planned):
    model = planned()[0].model
    keeping = replace(model, linear=LinearConfig(layers=(0, 1)))
    alone = kernel_work(replace(model, layers=1), 3, T, 64, lambda width: "tpu", backward=True)
    assert kernel_work(keeping, 3, T, 64, lambda width: "tpu", backward=True) == alone
