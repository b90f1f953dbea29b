"""The texts of a run beside its task: which are rehearsed, which are only measured, and which must be there."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fit_jax.config import RehearsalConfig
from fit_jax.errors import InputError
from fit_jax.runs.texts import check_measured, measured_texts, rehearsal_rows


@pytest.fixture
def run(config, encoder, tmp_path):
    """A run that rehearses one file and measures another."""
    for name in ("mine", "other"):
        (tmp_path / f"{name}.txt").write_text(f"a text of {name}\n")
    evaluation = replace(config.evaluation, texts=(str(tmp_path / "other.txt"),))
    rehearsal = RehearsalConfig(files=(str(tmp_path / "mine.txt"),), rows=2)
    return SimpleNamespace(config=replace(config, evaluation=evaluation, rehearsal=rehearsal), encoder=encoder)


def test_what_was_trained_on_is_told_from_what_is_only_measured(run):
    found = measured_texts(run, rehearsed=True)
    assert [(texts.name, texts.rehearsed) for texts in found] == [("mine.txt", True), ("other.txt", False)]
    assert all(texts.tokens for texts in found)
    assert [texts.name for texts in measured_texts(run, rehearsed=False)] == ["other.txt"]


def test_what_was_rehearsed_may_be_gone_and_what_is_asked_for_may_not(run, tmp_path, capsys):
    (tmp_path / "mine.txt").unlink()
    assert [texts.name for texts in measured_texts(run, rehearsed=True)] == ["other.txt"]
    assert "the report does not measure what was rehearsed: rehearsal.files: " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"rehearsal\.files"):
        rehearsal_rows(run)
    (tmp_path / "other.txt").unlink()
    for read in (check_measured, lambda run: measured_texts(run, rehearsed=True)):
        with pytest.raises(InputError, match=r"evaluation\.texts"):
            read(run)


def test_a_run_without_files_rehearses_nothing(run):
    assert rehearsal_rows(SimpleNamespace(config=replace(run.config, rehearsal=RehearsalConfig()))) is None
