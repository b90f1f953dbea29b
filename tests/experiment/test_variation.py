"""What becomes of focus accuracy where an experiment varies something: its variants, their figure and their names."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fit_jax.config_files import parse_config
from fit_jax.errors import InputError
from fit_jax.evaluation.metrics import focus_accuracy
from fit_jax.experiment.config import ExperimentConfig, check_experiment, parts_of
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.other_models import shown_name
from fit_jax.experiment.variation import draw_variation, in_words, variation, variation_html

ABLATIONS = Path(__file__).resolve().parents[2] / "configs" / "experiments" / "ablations"
ROW = {"method": "fit", "paraphrases": "heldout", "split": "iid", "focus": "none", "count": 10}
VARIANTS = {
    "one": [ROW | {"seed": 0, "correct": 4}, ROW | {"seed": 1, "correct": 8}],
    "two <b>": [
        ROW | {"seed": 0, "correct": 9},
        ROW | {"seed": 0, "correct": 1, "split": "shifted_iid"},
        ROW | {"seed": 0, "correct": 2, "focus": "focus(spurious)"},
    ],
}


@pytest.mark.parametrize("path", [p for p in ABLATIONS.glob("*.yaml") if p.stem != "base"], ids=lambda p: p.stem)
def test_a_shipped_ablation_varies_what_it_names_and_nothing_else(path):
    command = f"python -m fit_jax.experiment --config configs/experiments/ablations/{path.name}"
    assert path.read_text().splitlines()[0] == f"# {command}"
    config = parse_config(ExperimentConfig, ["--config", str(path)])
    check_experiment(config)
    parts = parts_of(config)
    assert [shown_name(part) for part in parts] == list(config.variants)
    assert [part.run_dir for part in parts] == [f"{config.run_dir}/{name}" for name in config.variants]
    assert all(first.run != second.run for first, second in pairwise(parts))
    sections = {option.removeprefix("--").split(".")[0] for options in config.variants.values() for option in options}
    assert len(sections) == 1
    same = {section: getattr(config.run, section) for section in sections}
    assert all(replace(part.run, **same) == config.run for part in parts)
    assert parts[-1].beside == tuple(part.run_dir for part in parts[:-1])
    assert parts_of(parts[-1]) == [parts[-1]]  # what its folder holds goes on as it is


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variants": {"a": ("--focus.branchs=2",)}}, "variants: a: --focus.branchs: there is no such option"),
        ({"variants": {"a/b": ("--focus.branches=2",)}}, "variants: a/b: write letters"),
        ({"variants": {"a": ("--seed=2",)}}, "--seed is set by each cell"),
        ({"models": ("a.yaml",), "variants": {"a": ("--focus.branches=2",)}}, "stand beside models"),
        ({"varied": "", "variants": {"a": ("--focus.branches=2",)}}, "varied: say what the variants differ in"),
    ],
)
def test_wrong_variants_are_told(change, said):
    with pytest.raises(InputError, match=said):
        parts_of(replace(ExperimentConfig(varied="branches"), **change))


def test_a_point_is_the_mean_and_deviation_over_seeds():
    lines = variation(VARIANTS, "fit", "heldout", "core")
    assert list(lines) == ["iid"]
    one, two = lines["iid"]
    assert one == pytest.approx((0.6, np.std([0.4, 0.8], ddof=1)))
    assert two.mean == 0.9
    assert np.isnan(two.deviation)
    assert np.isnan(variation(VARIANTS, "fit", "heldout", "spurious")["iid"][0].mean)  # was not asked


def test_the_figure_is_drawn_and_told_in_words(tmp_path):
    draw_variation(VARIANTS, "some $count$", "heldout", tmp_path / "figure.png", "png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "FIT, core types, iid: one 0.600, two <b> 0.900" in in_words(VARIANTS, "count", "heldout")
    section = variation_html(VARIANTS, "count <i>", "heldout")
    assert "By count &lt;i&gt;" in section
    assert "<b>" not in section
    assert section.count("<svg") == 1


def test_variants_stand_beside_in_their_order(evaluations, encoder, tmp_path):
    cells = {("fit", 0): evaluations["fit", 0].predictions}
    shown = {"fit": evaluations["fit", 0]}
    rows = focus_accuracy(evaluations["sft_y", 0].predictions, "fit", 0, "demo")
    write_experiment_report(tmp_path, "demo", cells, shown, encoder, "fit", [], "3", {"1": rows}, "branches")
    summary = (tmp_path / "summary.md").read_text()
    assert "| branches | method |" in summary
    assert summary.index("| 1 | FIT |") < summary.index("| 3 | FIT |")
    assert (tmp_path / "variation.svg").exists()
    assert "variation.png" in summary
    assert (tmp_path / "tables" / "variants_heldout.csv").exists()
    assert "By branches" in (tmp_path / "index.html").read_text()
