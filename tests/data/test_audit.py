"""The audit finds shortcuts that are there, and none where there are none."""

import json
import re
from dataclasses import replace

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.__main__ import main as data_command
from fit_jax.data.audit import SourceTable, audit_task, feature_rows, leaks
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.data.tasks.jsonl import raw_table
from fit_jax.focus.example import Example, Spurious, TaskText


def test_finds_the_keywords_of_ss(built):
    audit = audit_task(built("ss", rho_train=0.9))
    train = [row for row in audit.tokens if row.split == "train"]
    assert [(row.token, row.label) for row in train[:2]] == [("bayesian", "negative"), ("pineapple", "positive")]
    assert all(row.z > 50 for row in train[:2])
    strength = {row.split: row for row in audit.associations}
    assert strength["train"].information == pytest.approx(0.531, abs=0.002)
    assert {row.value: row.agree for row in audit.features if row.split == "train"} == pytest.approx(
        {"Bayesian": 0.9, "Pineapple": 0.9}, abs=1e-3
    )


def test_independent_keywords_are_not_proposed(built):
    audit = audit_task(built("ss"))
    assert not {"bayesian", "pineapple"} & {row.token for row in audit.tokens if row.split in ("train", "iid")}
    strength = {row.split: row for row in audit.associations}
    assert strength["train"].information <= strength["train"].bias


def test_columns_that_nobody_described_are_looked_at(own):
    table = raw_table(TaskConfig(name="jsonl", file=str(own)))
    audit = audit_task(table.task, source=SourceTable(table.row, table.described))
    found = {row.name: row for row in audit.evidence}
    assert found.keys() == {
        *("all words together", "feature sender", "length of text", "column queue, not described"),
        *("column hour, not described", "column desk, not described"),
    }
    queue, sender = found["column queue, not described"], found["feature sender"]
    assert queue.passes
    assert sender.passes
    assert not found["column hour, not described"].passes
    assert not found["column desk, not described"].passes
    # What the text tells, the queue does not tell again; the text tells the sender's hours, and not all of the sender.
    assert queue.beyond_words < 0.02 < 0.2 < queue.bits
    assert found["all words together"].bits >= queue.bits - 0.02


def test_a_table_that_cannot_be_balanced_is_audited(own, capsys, tmp_path):
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows = [row for row in rows if (row["sender"] == "shop") == (row["urgent"] == "yes")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--task", "jsonl", "--task.file", str(own), "--tokenizer.vocab_size", "300"]
    data_command(["audit", *options, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["balance"] == []
    assert any(note.startswith("no splits can be drawn: split train: rho 0.5 on ") for note in told["notes"])


def test_what_balancing_leaves_out_is_a_picture_of_the_page(own, capsys, tmp_path):
    options = ["--task", "jsonl", "--task.file", str(own), "--tokenizer.vocab_size", "300"]
    data_command(["audit", *options, "--html", str(tmp_path / "audit.html")])
    printed = " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "audit.html").read_text()
    (title,) = re.findall("<svg[^>]*><title>(train: .* rows .* are left out, .* stay)</title>", page)
    assert title.split(",")[0].split(" of ")[0] in printed
    assert "likely shortcuts" in page
    assert "░" in printed


def test_finds_duplicates_and_leaks(built):
    task = built("demo")
    train, test = (list(task.splits[name].examples[:50]) for name in ("train", "iid"))
    test[0] = replace(train[3], uid="copy", slots={"text": train[3].slots["text"].upper() + " !"})
    train[9] = replace(train[4], uid="twin")
    splits = {"train": Split("train", train, {}), "iid": Split("iid", test, {})}
    found = leaks(Task(text=task.text, splits=splits))
    assert [(leak.first, leak.second, leak.count) for leak in found] == [("train", "train", 1), ("train", "test", 1)]
    assert leaks(task) == []


def test_lengths_and_truncation(built):
    audit = audit_task(built("demo"), lambda examples: [len(e.slots["text"].split()) for e in examples], 20)
    for name, split in built("demo").splits.items():
        assert sum(count for _, count in audit.lengths[name]) == audit.sizes[name] == len(split.examples)
        longer = sum(len(e.slots["text"].split()) > 20 for e in split.examples)
        assert audit.truncated[name] == pytest.approx(longer / len(split.examples))


TEXT = TaskText(name="t", instruction="i", input_template="{text}", cue="c", core="c", spurious={"word": "word"})


def part(name, *rows):
    """A split of texts, each with the value in it, the label, and the label that the value is tied to."""
    examples = [
        Example(f"{name}-{n}", {"text": text}, ("no", "yes"), label, {"word": Spurious(value, tied)})
        for n, (text, value, label, tied) in enumerate(rows)
    ]
    return Split(name, examples, {})


def test_a_text_with_another_inserted_word_is_the_same_text():
    train, test = part("train", ("we saw it Lynx", "Lynx", 0, 0)), part("iid", ("Otter, we saw it", "Otter", 1, 1))
    (leak,) = leaks(Task(text=TEXT, splits={"train": train, "iid": test}))
    assert (leak.first, leak.second, leak.count, leak.example) == ("train", "test", 1, "train-0")


def test_agreement_is_counted_value_by_value():
    split = part("train", ("a", "Lynx", 0, 0), ("b", "Lynx", 1, 0), ("c", "Lynx", 0, 0), ("d", "Otter", 1, 1))
    found = [(row.value, row.count, row.agree) for row in feature_rows(split, split.examples)]
    assert found == [("Lynx", 3, pytest.approx(2 / 3)), ("Otter", 1, 1.0)]


def test_a_text_that_just_fits_is_not_truncated():
    splits = {"train": part("train", *[(f"text {n}", "Lynx", n % 2, 0) for n in range(4)])}
    audit = audit_task(Task(text=TEXT, splits=splits), lambda examples: [19, 20, 20, 21], 20)
    assert audit.truncated == {"train": 0.25}
