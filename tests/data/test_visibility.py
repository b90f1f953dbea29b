"""Features that a model cannot see in its input are told where data are inspected, audited and trained on."""

import json

import pytest
import yaml

from fit_jax.config import TaskConfig
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.jsonl import raw_table

from ..tickets import TICKETS

CHANNEL = {"key": "channel", "name": "the channel", "column": "channel"}
FUNCTIONS = """
def long(row):
    return "long" if len(row["text"]) > 30 else "short"

def paid(row):
    return "paid" if row["plan"] == "pro" else None

def careful(row):
    return row.get("plan", "unknown")
"""


@pytest.fixture
def notes(tmp_path):
    """What is told of data with some fields of the description; the value of `channel` may stand in the text."""

    def notes(shown=0.0, build=lambda config: raw_table(config).task, **description):
        rows = []
        for n in range(400):
            channel = ("e.mail", "phone")[n // 2 % 2]
            text = f"Ticket {n}" + " and more of it, at length" * (n % 3 == 0)
            text += f" came by {channel.upper()}!" if n % 100 < 100 * shown else ""
            plan = ("free", "pro")[n // 4 % 2]
            rows.append({"text": text, "urgent": ("no", "yes")[n % 2], "channel": channel, "plan": plan})
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "own.py").write_text(FUNCTIONS)
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**TICKETS, "features": [CHANNEL], **description}))
        told = build(TaskConfig(name="jsonl", file=str(path))).notes
        return [note for note in told if "hidden from the model" in note]

    return notes


def test_a_column_that_the_input_does_not_show(notes):
    (note,) = notes()
    assert note == (
        "feature channel is hidden from the model: the input shows its value in 0 of 300 rows looked at, so that no "
        "instruction about the channel can be followed; put the column into `input`, as in 'channel: {channel}'"
    )
    assert notes(build=lambda config: build_task(config, 0)) == [note]


def test_a_column_that_the_input_shows(notes):
    assert notes(input="{channel}: {text}") == []
    assert notes(shown=1.0) == []
    (note,) = notes(shown=0.5)
    seen = int(note.split("value in ")[1].split()[0])
    assert 130 < seen < 170


@pytest.mark.parametrize(("name", "hidden"), [("long", 0), ("paid", 1), ("careful", 1)])
def test_a_function_of_what_the_input_shows_is_seen(notes, name, hidden):
    feature = {"key": "f", "function": f"own.py:{name}"}
    found = notes(features=[feature])
    assert len(found) == hidden
    assert all(f"put the columns that own.py:{name} reads into `input`" in note for note in found)
    assert notes(features=[feature], input="{text} ({plan})") == []


def test_keywords_and_inserted_words_are_seen(notes):
    assert notes(features=[{"key": "k", "keywords": ["more", "ticket"]}]) == []
    word = {"key": "w", "insert": ["Lynx", "Otter"], "labels": {"Lynx": "no", "Otter": "yes"}}
    assert notes(build=lambda config: build_task(config, 0), features=[word]) == []
