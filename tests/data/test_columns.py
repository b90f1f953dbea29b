"""Columns of a table: the kind of each, and a bound on what is kept of it."""

import tracemalloc

import numpy as np
import pytest

from fit_jax.data.columns import kind_of, profile


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["", None, "NA"], "empty"),
        (["a", "A ", ""], "constant"),
        (["a", "b"] * 10, "category"),
        ([f"u{n}" for n in range(30)], "identifier"),
        ([f"2024-01-{n}" for n in range(10, 30)], "date"),
        ([n / 7 for n in range(30)], "number"),
        ([f"this is text {n}" for n in range(30)], "text"),
        ([["a"], ["b"]], "nested"),
        ([f"v{n}" for n in range(30)] + ["v1"], "many values"),
    ],
)
def test_kinds(cells, kind):
    assert kind_of(cells) == kind


def test_memory_does_not_grow_with_the_table():
    def rows(count):
        for n in range(count):
            yield f"t.csv:{n}", {"id": f"row {n}", "text": f"word {n} " * 30, "label": "ab"[n % 2], "n": str(n % 5000)}

    def peak(count):
        tracemalloc.start()
        found = profile(rows(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found, most

    from fit_jax.data import columns

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MOST_ROWS", 200)
        (small, few), (large, many) = peak(2_000), peak(20_000)
    assert (large.rows, len(large.sample)) == (20_000, 200)
    assert large.columns["n"].different is None
    assert large.columns["label"].counts == {"a": 10_000, "b": 10_000}
    assert small.columns["n"].different is None
    # Keys of the column in which no two cells are the same are all that grows.
    assert many - few < 18_000 * 200
    numbers = [int(row["id"].split()[1]) for row in large.sample]
    assert abs(np.mean(numbers) / 10_000 - 1) < 0.15
