"""docs/own_data.md: the description and function of its real table work as they stand, and its figures are right."""

import json
import re
from pathlib import Path

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.audit import audit_task
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.jsonl import raw_table

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "own_data.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def description(tmp_path, data_dir):
    (tmp_path / "pairs.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "negation.py").write_text(blocks("python")[1])
    rows = (data_dir / "mnli" / "multinli_1.0_dev_matched.genre.jsonl").read_text(encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text(rows)
    assert json.loads(blocks("json")[0]).items() <= json.loads(rows.splitlines()[0]).items()
    return TaskConfig(name="jsonl", file=str(tmp_path / "pairs.yaml"))


def test_audit_figures(description):
    audit = audit_task(raw_table(description).task)
    shown = {(row.feature, row.value): (row.count, round(row.agree, 4)) for row in audit.features}
    assert shown["negation", "present"] == (2071, 0.5606)
    assert shown["genre", "government"] == (1945, 0.3650)
    tokens = {row.token: (row.label, row.count, round(row.z, 1)) for row in audit.tokens}
    assert tokens["no"] == ("contradiction", 646, 14.2)
    assert tokens["because"] == ("neutral", 462, 6.1)


def test_split_figures(description):
    task = build_task(description, 0)
    for start in ("split train: 5098 examples", "feature genre is hidden"):
        (note,) = (note for note in task.notes if note.startswith(start))
        assert f"note: {note}\n" in GUIDE.read_text(encoding="utf-8")
    assert task.splits["train"].rho["negation"]["present"].count == 887
