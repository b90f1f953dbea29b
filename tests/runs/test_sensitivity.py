"""The page on whether a model leans on a feature: before tuning and after, in words, tables and files."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.evaluation.queries import answered
from fit_jax.focus.example import Spurious
from fit_jax.runs import sensitivity
from fit_jax.runs.sensitivity import check_sensitivity, report_sensitivity, verdict

MODELS = {"step 7": "follows", "before tuning": "leans"}


@pytest.fixture
def run(config, task, monkeypatch):
    """A run whose tuned model follows instructions, and whose base answered with the keyword's label."""

    def given(query, how):
        scores = np.log([0.9, 0.1])
        return answered(query, scores if _label(query, how) == 0 else scores[::-1], None)

    def answer(groups, subject):
        return ([given(query, subject.scorer) for query in group.queries] for group in groups)

    monkeypatch.setattr(sensitivity, "answer", answer)
    monkeypatch.setattr(
        sensitivity, "of_both", lambda run, which, measure: {name: measure(how, ()) for name, how in MODELS.items()}
    )
    return SimpleNamespace(config=config, folder="RUN", encoder=None, task=task)


def _label(query, how: str) -> int:
    """Who leans is right where it is told to focus on the core feature, and nowhere else."""
    leans = how == "leans" and query.focus != "focus(core)"
    return query.example.spurious[query.feature].label if leans else query.label


def test_the_page_tells_before_and_after(run, tmp_path, capsys):
    found = report_sensitivity(run, "best", "iid", tmp_path / "page")
    assert list(found) == ["before tuning", "step 7"]
    before, after = found.values()
    assert {(c.focus == "focus(core)", c.changed.value) for c in before.changes} == {(True, 0.0), (False, 1.0)}
    assert {(c.focus.startswith("focus(spurious)"), c.changed.value, c.ought) for c in after.changes} == {
        (True, 1.0, 1.0),
        (False, 0.0, 0.0),
    }
    assert after.figures["core"]["accuracy"] == after.figures["core"]["worst group"] == 1.0
    assert before.figures["core"]["worst group"] == 0.0
    assert after.figures["core"]["confidence"] == pytest.approx(0.9)
    assert after.figures["core"]["calibration error"] == pytest.approx(0.1)
    assert after.obeyed["obedience"] == 0.0
    # Neither reads decoys.
    assert before.obeyed["obedience"] == before.obeyed["obedience_plain"] > 0
    assert before.obeyed["accuracy"] == before.obeyed["accuracy_plain"] < 1
    words = (
        "alone changes the answer in 0.000 of the texts (1.000 before tuning) without an instruction, in 0.000 of the "
        "texts (1.000 before tuning) where it is to be ignored, and in 1.000 of the texts (1.000 before tuning) where "
        "it is to be gone by, where 1.000 should."
    )
    assert f"Exchanging {run.task.text.spurious['keyword']} {words}" in capsys.readouterr().out
    files = {path.name for path in (tmp_path / "page").iterdir()}
    assert files == {"sensitivity.json", "summary.md", "index.html"}
    record = json.loads((tmp_path / "page" / "sensitivity.json").read_text())
    assert record["split"] == "iid"
    assert list(record["models"]) == ["before tuning", "step 7"]
    assert record["models"]["step 7"]["changes"][0]["changed"] == 0.0
    assert record["models"]["before tuning"]["core types"]["worst group"] == 0.0
    for name in ("summary.md", "index.html"):
        text = (tmp_path / "page" / name).read_text()
        assert words in text
        assert "obedience to decoys" in text
        assert "before tuning" in text


def test_a_model_from_random_weights_stands_alone(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "of_both", lambda run, which, measure: {"step 7": measure("follows", ())})
    found = report_sensitivity(run, "best", "iid", tmp_path)
    assert "before tuning" not in verdict(found, run.task.text.spurious)
    assert "0.000 of the texts without an instruction" in verdict(found, run.task.text.spurious)


def test_values_that_do_not_stand_in_the_text_are_told(run, tmp_path):
    split = run.task.splits["iid"]
    labels = [e.spurious["keyword"].label for e in split.examples]
    away = [replace(e, spurious={"keyword": Spurious(f"no{n}", n)}) for e, n in zip(split.examples, labels)]
    run.task = replace(run.task, splits={**run.task.splits, "iid": replace(split, examples=away)})
    found = report_sensitivity(run, "best", "iid", tmp_path)
    assert not found["step 7"].changes
    assert verdict(found, {}).startswith("No spurious feature has values that stand in the texts")
    assert "worst group" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("split", ["train", "somewhere"])
def test_a_split_that_is_no_test_split_is_told(run, split):
    with pytest.raises(InputError, match=f"--sensitivity {split}: the task has no such test split with examples"):
        check_sensitivity(run, split)
