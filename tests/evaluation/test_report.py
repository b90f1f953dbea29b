"""The report's files: complete, whole, self-contained, and a page that works in a real browser."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from rich.console import Console

from fit_jax.errors import InputError
from fit_jax.evaluation import result_tables
from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.matching import UNPARSEABLE
from fit_jax.evaluation.report import progress_bar, read_predictions, write_report
from fit_jax.foreign import printable

from .conftest import NASTY


@pytest.fixture(scope="module")
def report(evaluation, task_with_shift, encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "report"
    write_report(folder, evaluation, task_with_shift, encoder, "fit", 0)
    return folder


def test_every_file_is_there_and_nothing_else(report):
    expected = {"focus_accuracy.jsonl", "predictions.jsonl", "summary.md", "radar.svg", "radar.png", "index.html"}
    assert {path.name for path in report.iterdir()} == expected


def test_rows_and_predictions_read_back(report, evaluation):
    rows = [json.loads(line) for line in (report / "focus_accuracy.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 6 * 2
    assert all(row["ci_low"] <= row["accuracy"] <= row["ci_high"] for row in rows)
    assert read_predictions(report / "predictions.jsonl") == evaluation.predictions


def test_pictures_are_what_their_names_say(report):
    assert (report / "radar.png").read_bytes().startswith(b"\x89PNG")
    root = ElementTree.parse(report / "radar.svg").getroot()
    assert root.tag.endswith("svg")


def test_the_same_evaluation_gives_the_same_bytes(report, evaluation, task_with_shift, encoder, tmp_path):
    write_report(tmp_path, evaluation, task_with_shift, encoder, "fit", 0)
    for path in report.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_summary_holds_tables_references_and_the_rho_realised(report):
    text = (report / "summary.md").read_text()
    for part in (
        "paraphrases never seen in training",
        "always the commonest y_s (spurious types)",
        "always y_s (core types)",
        "rho realised",
        "flip rate",
        "0.700 [",
    ):
        assert part in text
    tables_ = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for table in tables_:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_page_loads_nothing(report):
    page = (report / "index.html").read_text()
    page = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?[^"'#\s]""", page)
    assert not re.search(r"@import|url\((?!#)|<link|<iframe|fetch\(|XMLHttpRequest", page)


def test_the_embedded_data_cannot_leave_its_element(report, evaluation):
    page = (report / "index.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert "<" not in data
    records = json.loads(data)
    assert any(printable(NASTY) in record["prompt"] for record in records)
    assert f"{len(records)} of {len(evaluation.predictions)} examples" in page


def test_the_page_works_in_a_browser(report, browse):
    dom = browse(report / "index.html")
    assert len(re.findall("<article>", dom)) == 10
    assert re.search(r">\d+ of \d+ examples<", dom)
    assert "<img" not in dom
    assert dom.count("<option") >= 3 + 6 + 1 + 2 + 2


def test_an_unwritable_folder_is_reported(evaluation, task_with_shift, encoder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        write_report(tmp_path / "file" / "report", evaluation, task_with_shift, encoder, "fit", 0)


def test_a_split_without_a_spurious_feature_leaves_its_cells_empty(task_with_shift, evaluation, encoder, tmp_path):
    """Other splits may have what one lacks: the spurious types, or a paraphrase set."""
    lacking = Evaluation([], [])
    for query, p in zip(evaluation.queries, evaluation.predictions):
        if p.split != "flipped" or p.focus in ("none", "focus(core)"):
            lacking.queries.append(query)
            lacking.predictions.append(p)
    shifted = task_with_shift
    write_report(tmp_path, lacking, shifted, encoder, "fit", 0)
    page = (tmp_path / "index.html").read_text()
    (row,) = re.findall(r">always the commonest y_s \(spurious types\)</th>(.*?)</tr>", page)[:1]
    assert re.findall("<td[^>]*>(.*?)</td>", row) == ["", "0.500", "", "0.500"]
    Console(width=120, file=io.StringIO()).print(result_tables.terminal_table("t", lacking.predictions).terminal())


def test_written_answers_show_in_page_and_summary(task_with_shift, evaluation, encoder, tmp_path):
    said = Evaluation(evaluation.queries, [replace(p, text="hm", meant=UNPARSEABLE) for p in evaluation.predictions])
    write_report(tmp_path, said, task_with_shift, encoder, "fit", 0)
    assert "## Unparseable answers" in (tmp_path / "summary.md").read_text()
    assert '"text":"hm"' in (tmp_path / "index.html").read_text()
    assert read_predictions(tmp_path / "predictions.jsonl") == said.predictions


def test_a_log_says_that_an_evaluation_has_begun_and_how_far_it_is(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_bar("evaluating") as on_progress:
        for done in range(101):
            on_progress(done, 100)
            now[0] += 0.25
    told = ["evaluating: 0 of 100 examples", "evaluating: 60 of 100 examples"]
    assert capsys.readouterr().out.splitlines() == told
