"""The report over several tasks: each counts once, and those never trained on stand apart."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fit_jax.data.mixture import mix
from fit_jax.evaluation.metrics import Accuracy, pooled
from fit_jax.evaluation.mixture_report import (
    HELD_OUT,
    TRAINED,
    focus_tables,
    macro,
    macro_cells,
    mixture_tables,
    write_mixture_report,
)
from fit_jax.evaluation.result_tables import focus_table

from .chosen_answers import evaluated, y, y_s


@pytest.fixture(scope="module")
def mixture(task):
    def called(name):
        return replace(task, text=replace(task.text, name=name))

    return mix({"right": called("right"), "core": called("core"), "new": called("new")}, dict(right=1, core=3, new=0))


@pytest.fixture(scope="module")
def answers(task):
    """Of a task that follows, one with far fewer texts that answers y whatever is asked, and one that answers y_s."""
    return {
        "right": evaluated(task, lambda q: q.label, copies=10).predictions,
        "core": evaluated(task, y, copies=1).predictions,
        "new": evaluated(task, y_s, copies=10).predictions,
    }


def test_a_macro_average_is_the_mean_of_the_tasks_however_many_examples_they_have(answers, mixture):
    cells = macro_cells(answers, mixture)
    own = {name: pooled(given) for name, given in answers.items()}
    assert cells[TRAINED].keys() == own["right"].keys()
    for key, cell in cells[TRAINED].items():
        assert cell.accuracy == pytest.approx((own["right"][key].accuracy + own["core"][key].accuracy) / 2)
        assert cell.ci_low <= cell.accuracy <= cell.ci_high
        assert cell.count == own["core"][key].count < own["right"][key].count
    assert {key: cell.accuracy for key, cell in cells[HELD_OUT].items()} == {
        key: cell.accuracy for key, cell in own["new"].items()
    }


def test_the_interval_of_a_macro_average_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    shares, sizes, held = np.array([0.95, 0.7, 0.4]), (60, 120, 40), 0
    for _ in range(2000):
        found = rng.binomial(sizes, shares) / sizes
        cells = [Accuracy(a, *wilson(a, n), n) for a, n in zip(found, sizes)]
        mean = macro(cells)
        held += mean.ci_low <= shares.mean() <= mean.ci_high
    assert abs(held / 2000 - 0.95) < 0.02


def wilson(share, count, z=1.96):
    middle, reach = share + z * z / (2 * count), z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return float((middle - reach) / scale), float((middle + reach) / scale)


def test_a_split_that_one_task_lacks_has_no_macro_average(answers, mixture):
    more = [replace(p, split="natural") for p in answers["right"]]
    cells = macro_cells({**answers, "right": [*answers["right"], *more]}, mixture)
    assert {split for _, split, _ in cells[TRAINED]} == {"iid"}


def test_the_table_by_task_tells_what_was_trained_on_and_who_follows(answers, mixture):
    by_task, *averages = mixture_tables(answers, mixture)
    told = {row[0]: row[1:3] for row in by_task.rows}
    assert told["right"] == ("25.0% of the examples", "follows the focus instruction")
    assert told["core"][0] == "75.0% of the examples"
    assert told["new"] == ("never", "answers with y_s even where the instruction asks for the true label y")
    assert ["never trained on" in table.title for table in averages] == [False, False, True, True]
    assert "never seen in training" in averages[0].title  # the main paraphrase set first


def test_macro_averages_stand_beside_what_answers_without_reading_reach(answers, mixture):
    """The mean of the tasks', each once: here y = y_s in none of one task's texts and in all of the other's."""
    apart = [p for p in answers["right"] if p.core_label != p.spurious_label]
    alike = [p for p in answers["core"] if p.core_label == p.spurious_label]
    _, average, *_ = mixture_tables({**answers, "right": apart, "core": alike}, mixture)
    assert dict(average.rows)["always y_s (core types)"] == "0.500"
    alone = mixture_tables({**answers, "right": apart, "core": apart}, mixture)[1]
    assert dict(alone.rows)["always y_s (core types)"] == "0.000"
    assert dict(alone.rows)["an answer at random"] == "0.500"


def test_tables_for_trackers_are_those_of_each_task(answers):
    header, rows = focus_tables(answers)
    assert header == ["task", "focus instruction", "iid"]
    assert [row[1:] for row in rows if row[0] == "new"] == focus_table(answers["new"])[1]
    assert focus_tables({"new": answers["new"]}) == focus_table(answers["new"])


def test_the_report_holds_the_rows_of_all_tasks_and_leads_to_theirs(answers, mixture, tmp_path):
    write_mixture_report(tmp_path, answers, mixture, "fit", 3)
    rows = [json.loads(line) for line in (tmp_path / "focus_accuracy.jsonl").read_text().splitlines()]
    assert {(row["task"], row["method"], row["seed"]) for row in rows} == {(name, "fit", 3) for name in answers}
    macros = [json.loads(line) for line in (tmp_path / "macro.jsonl").read_text().splitlines()]
    assert {row["kind"]: row["tasks"] for row in macros} == {"trained": ["right", "core"], "held out": ["new"]}
    summary, page = ((tmp_path / name).read_text() for name in ("summary.md", "index.html"))
    for name in answers:
        assert f"(tasks/{name}/summary.md)" in summary
        assert f'href="tasks/{name}/index.html"' in page
    assert "never trained on: new" in summary
