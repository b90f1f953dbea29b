"""An experiment's report: every table in every form, rows, figures and the page."""

import csv
import json
import re

import pytest

from fit_jax.evaluation.metrics import focus_accuracy
from fit_jax.experiment.method_report import write_experiment_report
from fit_jax.experiment.other_models import model_panels

from .conftest import SEEDS, SPURIOUS_SHARE


@pytest.fixture(scope="module")
def report(evaluations, encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment") / "report"
    cells = {key: e.predictions for key, e in evaluations.items()}
    shown = {method: evaluations[method, 0] for method in SPURIOUS_SHARE}
    write_experiment_report(folder, "smnli", cells, shown, encoder, "fit", ["A note with 5 % & <tags>."])
    return folder


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
    note = "A note with 5 % & &lt;tags&gt;."
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
