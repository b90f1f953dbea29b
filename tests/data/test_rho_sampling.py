"""Counts of a table's cells that keep its size and rho."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fit_jax.data.rho_sampling import cell_counts


@given(size=st.integers(0, 200), rho=st.floats(0, 1), outcomes=st.integers(2, 5), predicted=st.integers(0, 4))
@settings(deadline=None, max_examples=50)
def test_cell_counts_keep_size_and_rho(size, rho, outcomes, predicted):
    predicted %= outcomes
    (row,) = cell_counts([size], [predicted], rho, outcomes)
    assert row.sum() == size
    assert row.min() >= 0
    assert abs(row[predicted] - rho * size) <= 0.5
    others = np.delete(row, predicted)
    assert others.max() - others.min() <= 1
