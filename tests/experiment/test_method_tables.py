"""The paper's figures beside ours."""

from fit_jax.experiment.analysis import Estimate
from fit_jax.experiment.method_tables import paper_table
from fit_jax.experiment.paper import DIFFERENCES, ROWS, paper_rows


def test_the_papers_bbq_stands_beside_the_natural_splits_alone():
    splits = ("iid", "high", "natural", "shifted_natural")
    means = {(s, f): n / 10 + (f != "none") / 100 for n, s in enumerate(splits) for f in ("none", "focus(spurious)")}
    estimates = {("fit", "heldout", *key): Estimate(mean, None, 0.0, 1.0, 1, 9) for key, mean in means.items()}
    lines = {"at random": dict.fromkeys(splits, 1 / 3), "always unknown (core types)": {"natural": 0.51}}
    grid = paper_table(paper_rows("bbq"), estimates, "heldout", lines)
    assert grid.header[-2:] == ("spurious natural, paper", "ours")
    mistral = [row[2:] for row in grid.rows if row[1] == "Mistral" and row[4]]
    assert mistral == [("seen", "98-100", "20", "93", "21"), ("unseen", "96", "30", "84", "31")]
    assert grid.rows[-grid.aside :] == (
        ("at random", "", "seen", "", "33", "", "33"),
        ("at random", "", "unseen", "", "33", "", "33"),
        ("always unknown (core types)", "", "seen", "", "51", "", ""),
        ("always unknown (core types)", "", "unseen", "", "", "", ""),
    )


def test_what_differs_from_the_paper_is_told_with_its_figures():
    assert {row.task for row in ROWS} == DIFFERENCES.keys()
    assert "holds out: here nationality" in paper_table(paper_rows("bbq"), {}, "heldout", {}).caption
