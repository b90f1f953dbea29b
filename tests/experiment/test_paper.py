"""The figures that the paper prints."""

from fit_jax.experiment.paper import ROWS, paper_rows


def test_the_papers_figures_are_shares_in_order():
    for row in ROWS:
        for low, high in (row.core, *row.spurious.values()):
            assert 0 <= low <= high <= 100
    assert len({row[:4] for row in ROWS}) == len(ROWS)
    assert paper_rows("demo") == []
