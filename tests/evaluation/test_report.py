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
from fit_jax.evaluation.examples import EXAMPLES_PER_CELL, choose_examples
from fit_jax.evaluation.matching import UNPARSEABLE
from fit_jax.evaluation.model_card import model_card
from fit_jax.evaluation.queries import answered, ask
from fit_jax.evaluation.report import read_predictions, write_report
from fit_jax.focus.example import Example
from fit_jax.foreign import printable

NASTY = '</script><img src=x onerror=alert(1)><!-- <script> & \u2028 "quotes" | $cap'


@pytest.fixture(scope="module")
def evaluation(task) -> Evaluation:
    """Answers as a model would give them that is right at three x of four."""
    result = Evaluation([], [])
    for split in ("iid", "flipped", "shifted_iid"):
        for number, example in enumerate(task.splits[split.removeprefix("shifted_")].examples):
            text = example.slots["text"] if number else NASTY
            example = Example(f"{split}-{number}", {"text": text}, example.candidates, example.label, example.spurious)
            for query in ask(task.text, split, example, ("train", "heldout"), 0).queries:
                answer = query.label if number % 4 else 1 - query.label
                result.queries.append(query)
                result.predictions.append(answered(query, [-0.1 if i == answer else -2.5 for i in range(2)]))
    return result


@pytest.fixture(scope="module")
def task_with_shift(task):
    shifted = replace(task.splits["iid"], name="shifted_iid")
    return replace(task, splits={**task.splits, "shifted_iid": shifted})


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


def test_flipped_that_repeats_low_is_said_to_and_left_out_of_spreads(task, evaluation):
    flipped = [p for p in evaluation.predictions if p.split == "flipped"]
    low = [replace(p, split="low", log_probs=p.log_probs[::-1]) for p in flipped]
    text = result_tables.summary("t", evaluation.predictions + low, with_shift(task))
    assert "| flipped (as low) |" in text.replace("\n", "|")
    assert "`flipped` has the P(y = y_s) of `low`: with two answers they are one distribution." in text
    (spread,) = re.findall(r"spread over splits of focus\(core\) \| heldout \|  \| ([\d.]+)", text)
    assert spread == "0.400"  # 0.7 on iid, 0.3 on low
    assert "(as low)" not in result_tables.summary("t", evaluation.predictions, with_shift(task))


def test_the_worst_paraphrase_stands_in_words(task, evaluation):
    worst = next(p for p in evaluation.predictions if p.focus == "focus(core)" and p.paraphrases == "heldout")
    asked = [replace(p, log_probs=p.log_probs if same(p, worst) else right(p)) for p in evaluation.predictions]
    asked = [replace(p, log_probs=right(p)[::-1]) if same(p, worst) else p for p in asked]
    _, _, table = result_tables.summary("t", asked, with_shift(task)).partition("## By paraphrase")
    row = next(line for line in table.splitlines() if line.startswith("| `focus(core)` | heldout |"))
    words = next(q.instruction for q, p in zip(evaluation.queries, evaluation.predictions) if p is worst)
    assert "| 0.000 | 1.000 | " in row
    assert f"| {words} (" in row


def same(p, other) -> bool:
    return (p.focus, p.paraphrases, p.paraphrase) == (other.focus, other.paraphrases, other.paraphrase)


def right(p) -> tuple[float, ...]:
    return tuple(-0.1 if i == p.label else -2.5 for i in range(2))


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


def test_the_page_holds_both_right_and_wrong_answers_of_a_cell(evaluation):
    records, _ = choose_examples(evaluation.queries, evaluation.predictions, lambda q: "")
    cell = [r for r in records if (r["split"], r["focus"], r["paraphrases"]) == ("iid", "none", "train")]
    assert {r["label"] == r["prediction"] for r in cell} == {True, False}
    assert len(cell) <= EXAMPLES_PER_CELL


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


def test_the_terminal_table_shows_the_paraphrases_never_seen(evaluation):
    out = io.StringIO()
    Console(width=120, file=out).print(result_tables.terminal_table("fit on demo", evaluation.predictions).terminal())
    text = out.getvalue()
    assert "never seen" in text
    assert "focus(spurious) & ignore(core)" in text
    assert "0.700" in text


def test_several_features_are_broken_down(task, evaluation):
    other = [replace(p, feature="other") for p in evaluation.predictions]
    text = result_tables.summary("t", evaluation.predictions + other, with_shift(task))
    assert "## By feature" in text


def test_a_split_without_a_spurious_feature_leaves_its_cells_empty(task, evaluation, encoder, tmp_path):
    """Other splits may have what one lacks: the spurious types, or a paraphrase set."""
    lacking = Evaluation([], [])
    for query, p in zip(evaluation.queries, evaluation.predictions):
        if p.split != "flipped" or p.focus in ("none", "focus(core)"):
            lacking.queries.append(query)
            lacking.predictions.append(p)
    shifted = with_shift(task)
    write_report(tmp_path, lacking, shifted, encoder, "fit", 0)
    page = (tmp_path / "index.html").read_text()
    (row,) = re.findall(r">always the commonest y_s \(spurious types\)</th>(.*?)</tr>", page)[:1]
    assert re.findall("<td[^>]*>(.*?)</td>", row) == ["", "0.500", "", "0.500"]
    Console(width=120, file=io.StringIO()).print(result_tables.terminal_table("t", lacking.predictions).terminal())


def test_written_answers_show_in_page_and_summary(task, evaluation, encoder, tmp_path):
    said = Evaluation(evaluation.queries, [replace(p, text="hm", meant=UNPARSEABLE) for p in evaluation.predictions])
    write_report(tmp_path, said, with_shift(task), encoder, "fit", 0)
    assert "## Unparseable answers" in (tmp_path / "summary.md").read_text()
    assert '"text":"hm"' in (tmp_path / "index.html").read_text()
    assert read_predictions(tmp_path / "predictions.jsonl") == said.predictions


def test_bbq_rows_get_their_bias_scores(task, evaluation):
    slices = {"condition": "disambig", "unknown": "2"}
    asked = [replace(p, slices=slices, split="natural") for p in evaluation.predictions if p.split == "iid"]
    splits = {**task.splits, "natural": task.splits["iid"]}
    text = result_tables.summary("t", asked, replace(task, splits=splits))
    _, _, bias = text.partition("## Social bias")
    assert "/ none |" in bias
    assert "`focus(core)`" in bias
    assert "`focus(spurious)`" not in bias.partition("##")[0]
    assert "## Social bias" not in result_tables.summary("t", evaluation.predictions, with_shift(task))


def test_reference_lines_stand_in_every_table_of_accuracies(task, evaluation):
    other = [replace(p, feature="other") for p in evaluation.predictions]
    text = result_tables.summary("t", evaluation.predictions + other, with_shift(task))
    # Two sets of paraphrases, and two features in the table by feature.
    for line in ("an answer at random", "always the commonest y (core", "always the commonest y_s", "always y_s (core"):
        assert len(re.findall(rf"^\| (?:\w+ \| )?{re.escape(line)}.* 0\.\d", text, flags=re.MULTILINE)) == 4, line
    tables = result_tables.result_tables(evaluation.predictions, with_shift(task))
    assert "".join(table.html() for table in tables).count(">always y_s (core types)</th>") == 2
    out = io.StringIO()
    Console(width=120, file=out).print(result_tables.terminal_table("t", evaluation.predictions).terminal())
    assert "always y_s (core types)" in out.getvalue()


def with_shift(task):
    return replace(task, splits={**task.splits, "shifted_iid": task.splits["iid"]})


def test_the_card_names_base_method_and_results(config, task_with_shift, evaluation):
    card = model_card(config, task_with_shift, evaluation.predictions)
    assert card.startswith("---\ntags:")
    for part in (
        "focus instruction tuning",
        "from scratch",
        "`focus(keyword) & ignore(core)`",
        "rho realised",
        "run_dir:",
    ):
        assert part in card
    assert len(re.findall("^# ", card, flags=re.MULTILINE)) == 1
    assert "no better than chance" in card


def test_the_card_does_not_claim_chance_where_each_question_has_its_own_answers(config, task_with_shift, evaluation):
    first = replace(task_with_shift.splits["validation"].examples[0], own_answers=True)
    validation = replace(task_with_shift.splits["validation"], examples=[first], rho={})
    own = replace(task_with_shift, splits={**task_with_shift.splits, "validation": validation})
    card = model_card(config, own, evaluation.predictions)
    assert "no better than chance" not in card
    assert "82 to 84 %" in card


def test_examples_without_a_spurious_feature_are_asked_the_other_types(task):
    plain = Example("plain", {"text": "fine"}, ("a", "b"), 0, {})
    queries = ask(task.text, "iid", plain, ("train",), 0).queries
    assert [q.focus for q in queries] == ["none", "focus(core)"]
    assert answered(queries[0], [-1.0, -2.0]).value == ""
