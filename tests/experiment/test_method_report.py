"""An experiment's analysis and report from made-up answers of two methods and three seeds."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.metrics import focus_accuracy, kind_of
from fit_jax.evaluation.queries import answered, ask
from fit_jax.experiment.analysis import Estimate, MethodAnswer, by_kind, by_paraphrase, by_type, compare, measures
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.method_tables import paper_table
from fit_jax.experiment.other_models import model_panels
from fit_jax.experiment.paper import DIFFERENCES, ROWS, paper_rows
from fit_jax.tables import Table

SEEDS = (0, 1, 2)
SPURIOUS_SHARE = {"fit": 1.0, "sft_y": 0.25}


def evaluation_of(task, method: str, seed: int) -> Evaluation:
    """A method that is right on core types, and on its share of spurious ones."""
    rng = np.random.default_rng(seed)
    result = Evaluation([], [])
    for split in ("iid", "flipped"):
        for example in task.splits[split].examples:
            for query in ask(task.text, split, example, ("heldout",), 0).queries:
                right = kind_of(query.focus) == "core" or rng.random() < SPURIOUS_SHARE[method]
                choice = query.label if right else 1 - query.label
                result.queries.append(query)
                result.predictions.append(answered(query, [-0.1 if i == choice else -2.5 for i in range(2)]))
    return result


@pytest.fixture(scope="module")
def evaluations(task):
    return {(method, seed): evaluation_of(task, method, seed) for method in SPURIOUS_SHARE for seed in SEEDS}


@pytest.fixture(scope="module")
def answers(evaluations):
    return [MethodAnswer(*key, p) for key, e in evaluations.items() for p in e.predictions]


@pytest.fixture(scope="module")
def report(evaluations, encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment") / "report"
    cells = {key: e.predictions for key, e in evaluations.items()}
    shown = {method: evaluations[method, 0] for method in SPURIOUS_SHARE}
    write_experiment_report(folder, "smnli", cells, shown, encoder, "fit", ["A note with 5 % & <tags>."])
    return folder


def test_means_and_deviations_are_over_seeds(answers):
    per_seed = [
        np.mean(
            [
                a.prediction.correct
                for a in answers
                if a[:2] == ("sft_y", s) and a.prediction.split == "iid" and kind_of(a.prediction.focus) == "spurious"
            ]
        )
        for s in SEEDS
    ]
    estimate = by_kind(answers)["sft_y", "heldout", "iid", "spurious"]
    assert estimate.mean == pytest.approx(np.mean(per_seed))
    assert estimate.std == pytest.approx(np.std(per_seed, ddof=1))
    assert (estimate.seeds, estimate.examples) == (3, 10)
    assert estimate.ci_low <= estimate.mean <= estimate.ci_high
    one = by_type([a for a in answers if a.seed == 0])
    assert {e.std for e in one.values()} == {None}


def test_the_reference_beats_a_method_that_does_not_follow_the_focus(answers):
    found = {(c.kind, c.split): c for c in compare(answers, "fit")}
    assert set(found) == {(k, s) for k in ("core", "spurious") for s in ("iid", "flipped")}
    c = found["spurious", "iid"]
    assert c.ci_low > 0.3
    assert c.p < c.p_holm < 0.05
    assert found["core", "iid"].difference == 0
    assert found["core", "iid"].p_holm == 1


def test_the_worst_seed_counts_as_much_as_thousands_of_examples(answers):
    """Two seeds beat the reference by far and one by nothing: over examples that is certain, over seeds it is not."""
    fit = [a for a in answers if a.method == "fit"]
    other = [a._replace(method="sft_y", prediction=wrong_if(a, a.seed != 2)) for a in fit]
    found = {(c.kind, c.split): c for c in compare(fit + other, "fit")}
    c = found["spurious", "iid"]
    assert c.difference == pytest.approx(2 / 3)
    assert c.p > 0.1
    assert c.ci_low < 0 < c.ci_high
    always = [a._replace(method="sft_y", prediction=wrong_if(a, True)) for a in fit]
    assert {(c.kind, c.split): c for c in compare(fit + always, "fit")}["spurious", "iid"].p < 0.001


def test_one_seed_has_an_interval_over_clusters_and_no_p(answers):
    found = compare([a for a in answers if a.seed == 0], "fit")
    assert {(c.p, c.p_holm) for c in found} == {(None, None)}
    assert all(c.ci_low <= c.difference <= c.ci_high for c in found)


def test_methods_that_share_no_seed_are_compared_unpaired(answers):
    apart = [a for a in answers if (a.method == "fit") == (a.seed < 2)]
    (c,) = [c for c in compare(apart, "fit") if (c.kind, c.split) == ("spurious", "iid")]
    assert 0.5 < c.difference < 1
    assert c.p is None  # one of the methods has one seed


def test_a_split_that_repeats_another_is_no_further_evidence(answers):
    low = [
        a._replace(prediction=replace(a.prediction, split="low")) for a in answers if a.prediction.split == "flipped"
    ]
    assert {c.split for c in compare(answers + low, "fit")} == {"iid", "low"}
    assert measures(answers + low) == measures([a for a in answers + low if a.prediction.split != "flipped"])


def test_the_spread_over_paraphrases_is_over_all_seeds(answers):
    found = by_paraphrase(answers)
    assert {key[0] for key in found} == {"fit", "sft_y"}
    spread = found["sft_y", "heldout", "focus(spurious)"]
    asked = {(a.seed, a.prediction.uid) for a in answers}  # the same text may stand in both splits
    assert sum(mean.examples for mean in spread.accuracy.values()) == len(asked)
    assert min(mean.value for mean in spread.accuracy.values()) == spread.accuracy[spread.worst].value
    assert found["fit", "heldout", "focus(spurious)"].deviation == 0


def wrong_if(answer, wrong: bool):
    p = answer.prediction
    return replace(p, log_probs=p.log_probs[::-1]) if wrong and kind_of(p.focus) == "spurious" else p


def test_only_shared_seeds_are_compared(answers):
    fewer = [a for a in answers if a.method == "fit" or a.seed == 1]
    same = [a for a in answers if a.seed == 1]
    differences = [[c.difference for c in compare(part, "fit")] for part in (fewer, same)]
    assert differences[0] == pytest.approx(differences[1])


def test_measures_tell_the_methods_apart(answers):
    # As many as make a group that means something.
    few = [a for a in answers if a.seed == 0 and a.prediction.split == "iid"]
    many = [a._replace(prediction=replace(a.prediction, uid=f"{a.prediction.uid}/{n}")) for a in few for n in range(30)]
    found = measures(many)
    assert found["fit", "heldout", "flip rate"][0] == 1.0
    assert found["sft_y", "heldout", "flip rate"][0] < 0.6
    assert found["fit", "heldout", "worst group, spurious types"][0] == 1.0
    assert not any("worst group" in name for *_, name in measures(answers))


def test_every_table_is_there_in_every_form(report):
    names = {"kinds_heldout", "types_heldout", "comparisons", "measures", "paper", "paraphrases"}
    assert {p.stem for p in (report / "tables").iterdir()} == names
    for name in names:
        with open(report / "tables" / f"{name}.csv", newline="") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1
        latex = (report / "tables" / f"{name}.tex").read_text()
        assert latex.count(r"\\") == len(rows)
        assert latex.count("{") == latex.count("}")
        assert not re.search(r"(?<!\\)[%#]", latex)
    for name in ("kinds_heldout", "types_heldout"):
        table = (report / "tables" / f"{name}.csv").read_text()
        assert re.search(r"^an answer at random,.*0\.500", table, flags=re.MULTILINE)
        assert re.search(r"^always y_s \(core types\),.*0\.", table, flags=re.MULTILINE)
    summary = (report / "summary.md").read_text()
    note = "A note with 5 % &amp; &lt;tags&gt;."
    for part in ("## Beside the paper", "SFT(y)", "84-90", "Holm", "Worst group", note):
        assert part in summary


def test_rows_figures_and_page_are_there(report):
    rows = [json.loads(line) for line in (report / "focus_accuracy.jsonl").read_text().splitlines()]
    assert {(r["method"], r["seed"]) for r in rows} == {(m, s) for m in SPURIOUS_SHARE for s in SEEDS}
    assert (report / "radar.png").read_bytes().startswith(b"\x89PNG")
    page = (report / "index.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert {e["method"] for e in json.loads(data)} == {"FIT", "SFT(y)"}
    assert "&lt;tags&gt;" in page
    assert not (report / "radar_shifted.png").exists()


def test_the_page_shows_the_chosen_cell_in_a_browser(report, browse):
    """One method, split and outcome chosen, the counts say how many there are and only such examples are shown."""
    choose = """
        for (const [name, value] of [["method", "SFT(y)"], ["split", "flipped"], ["outcome", "wrong"]])
          document.querySelector(`[name=${name}]`).value = value;
        document.getElementById("filters").dispatchEvent(new Event("input"));
    """
    chosen = browse(report / "index.html", choose)
    shown, of = (int(n) for n in re.search(r">(\d+) of (\d+) examples<", chosen).groups())
    assert 0 < shown < of
    places = re.findall('<div class="where">(.*?)</div>', chosen)
    assert places
    assert all(place.startswith("SFT(y) · flipped · focus(spurious)") for place in places)
    assert 'class="right"' not in chosen
    assert chosen.count("<svg") == 2
    assert "<table" in chosen


def test_other_models_stand_beside_in_table_and_figure(evaluations, encoder, tmp_path):
    cells = {("fit", 0): evaluations["fit", 0].predictions}
    shown = {"fit": evaluations["fit", 0]}
    rows = focus_accuracy(evaluations["sft_y", 0].predictions, "sft_y", 0, "demo")
    write_experiment_report(tmp_path, "demo", cells, shown, encoder, "fit", [], "small", {"large": rows})
    assert (tmp_path / "radar_models.png").read_bytes().startswith(b"\x89PNG")
    panels, columns = model_panels({"small": [], "large": rows}, "heldout", False)
    assert (len(panels), columns) == (2, 1)
    assert panels[0] is None
    assert set(panels[1].lines) == {"iid", "flipped"}
    summary = (tmp_path / "summary.md").read_text()
    assert "| large | SFT(y) |" in summary
    assert "| an answer at random |  | 0.500 | 0.500 | 0.500 | 0.500 |" in summary
    assert "radar_models.png" in summary


def test_latex_escapes_its_special_characters():
    text = Table("title", "5 % of y_s & ~^\\", ("x", "y"), (("{1}", "0.5 ± 0.1"),), name="a_b").latex()
    assert r"5 \% of y\_s \& \textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"\{1\} & 0.5 $\pm$ 0.1 \\" in text
    assert r"\label{tab:a-b}" in text


def test_the_papers_bbq_stands_beside_the_natural_splits_alone():
    splits = ("iid", "high", "natural", "shifted_natural")
    means = {(s, f): n / 10 + (f != "none") / 100 for n, s in enumerate(splits) for f in ("none", "focus(spurious)")}
    estimates = {("fit", "heldout", *key): Estimate(mean, None, 0.0, 1.0, 1, 9) for key, mean in means.items()}
    grid = paper_table(paper_rows("bbq"), estimates, "heldout")
    assert grid.header[-2:] == ("spurious natural, paper", "ours")
    mistral = [row[2:] for row in grid.rows if row[1] == "Mistral" and row[4]]
    assert mistral == [("seen", "98-100", "20", "93", "21"), ("unseen", "96", "30", "84", "31")]


def test_the_papers_figures_are_shares_in_order():
    for row in ROWS:
        for low, high in (row.core, *row.spurious.values()):
            assert 0 <= low <= high <= 100
    assert len({row[:4] for row in ROWS}) == len(ROWS)
    assert paper_rows("demo") == []


def test_what_differs_from_the_paper_is_told_with_its_figures():
    assert {row.task for row in ROWS} == DIFFERENCES.keys()
    assert "holds out: here nationality" in paper_table(paper_rows("bbq"), {}, "heldout").caption
