"""`data describe` of tickets: each column is considered and explained, and what it writes is used as it is."""

import json
import random
import re

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.__main__ import main
from fit_jax.data.describing import describe
from fit_jax.data.own_data import read_description
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

from .ticket_tables import CALM, URGENT, tickets, write_csv


def described(folder, rows, label=None):
    """The description of a table as `data inspect` reads it, and its text."""
    out = folder / "own.yaml"
    text = describe(write_csv(folder / "table.csv", rows), out, label).text
    out.write_text(text, encoding="utf-8")
    return read_description(out), text


def test_every_column_is_taken_for_what_it_is(tmp_path):
    found = describe(write_csv(tmp_path / "table.csv", tickets()), tmp_path / "own.yaml").draft
    assert found.roles == {
        "ticket": "uid",
        "message": "input",
        "channel": "first feature",
        "plan": "could be a feature",
        "price": "holds numbers",
        "code": "says the same as the label, so there is nothing to tell apart",
        "same": "not used: holds one value only",
        "priority": "label",
    }
    bits = {row.name: row for row in found.evidence}
    assert bits["column channel"].passes
    assert not bits["column plan"].passes
    assert bits["column code"].bits == pytest.approx(bits["all words together"].bits, rel=0.1)
    assert bits["length of the texts"].beyond_words < 0.01 < bits["length of the texts"].bits
    assert any(name.startswith("word ") for name in bits)


def test_what_it_writes_is_used_as_it_is(tmp_path, capsys):
    rows = tickets()
    rows[3]["priority"] = "urgent "
    rows[5]["message"] = ""
    rows[8]["priority"] = "Urgnt"
    rows[9]["channel"] = "EMAIL"
    rows[11]["channel"] = ""
    own, text = described(tmp_path, rows)
    assert own.candidates == ("Normal", "Urgent")
    assert (own.trim, own.ignore_case, own.ignore_form, own.malformed) == (True, True, False, "skip")
    assert own.features[0].labels == {"email": "Urgent", "phone": "Normal"}
    assert own.input == "Channel: {channel}\n{message}"
    assert "'Urgnt' (1, perhaps Urgent)" in text
    main(["inspect", "--task", "jsonl", "--task.file", str(tmp_path / "own.yaml"), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["notes"][0].startswith("3 malformed rows skipped")
    assert not any("hidden from the model" in note for note in told["notes"])
    assert set(told["splits"]["train"]["rho"]["channel"]) == {"email", "phone"}


def test_a_label_may_be_asked_for(tmp_path):
    own, text = described(tmp_path, tickets(), label="channel")
    assert own.label == "channel"
    assert own.candidates == ("email", "phone")
    assert "as --label asked" in text
    with pytest.raises(InputError, match="did you mean 'priority'"):
        described(tmp_path, tickets(), label="priorty")
    with pytest.raises(InputError, match="no 2 to 20 answers"):
        described(tmp_path, tickets(), label="price")


def test_without_a_column_to_suspect_a_word_is_put_into_the_text(tmp_path):
    rows = [{"message": row["message"], "priority": row["priority"]} for row in tickets()]
    own, _ = described(tmp_path, rows)
    (feature,) = own.features
    assert len(feature.insert) == 2
    assert set(feature.labels.values()) == {"Normal", "Urgent"}


def test_the_word_put_in_is_none_of_the_texts(tmp_path):
    rows = [{"message": f"{row['message']} by LYNX mail", "priority": row["priority"]} for row in tickets()]
    own, _ = described(tmp_path, rows)
    assert "Lynx" not in own.features[0].insert


def test_a_column_with_a_labels_name_is_the_label(tmp_path):
    """Though the words of the texts tell another one better."""
    rng = random.Random(1)
    rows = [
        {"message": row["message"], "label": rng.choice(("no", "yes")), "kind": row["priority"]} for row in tickets(400)
    ]
    found = describe(write_csv(tmp_path / "table.csv", rows), tmp_path / "own.yaml")
    assert found.draft.own.label == "label"
    assert "Others that could be the label: kind (100%)" in " ".join(found.text.replace("# ", "").split())


def test_a_column_with_a_labels_name_that_cannot_be_it_is_told(tmp_path):
    rows = [{**row, "code": "", "label": f"class {n % 30}"} for n, row in enumerate(tickets())]
    own, text = described(tmp_path, rows)
    assert own.label == "priority"
    assert "No label, for want of 2 to 20 answers of enough rows: label" in " ".join(text.replace("# ", "").split())


def test_a_value_is_tied_to_the_answer_that_it_goes_with_more_than_others_do(tmp_path):
    """Most e-mails are calm, as most tickets are; of the urgent ones more come by e-mail."""
    rng = random.Random(2)
    rows = []
    for n in range(1200):
        urgent = n % 4 == 0
        channel = "email" if rng.random() < (0.85 if urgent else 0.5) else "phone"
        message = f"{rng.choice(URGENT if urgent else CALM)}, order {n}"
        rows.append({"message": message, "channel": channel, "priority": ("Normal", "Urgent")[urgent]})
    own, _ = described(tmp_path, rows)
    assert own.features[0].labels == {"email": "Urgent", "phone": "Normal"}


def test_the_text_says_why_a_column_is_used_and_what_is_no_more_than_chance(tmp_path):
    _, text = described(tmp_path, tickets())
    by_chance = re.findall(r"^#   (.*?): .*no more than chance", text, flags=re.MULTILINE)
    assert "column plan" in by_chance
    assert "column channel" not in by_chance
    _, _, features = text.partition("features:\n")
    assert re.match(r"  # [\d.]+ bits about the label, [\d.]+ by chance", features)


def test_a_column_serves_by_more_test_rows_before_a_word_is_put_into_the_text(tmp_path):
    """And before one by chance alone; of so few rows against the shortcut a tenth is none for some test split."""
    rows = [{name: row[name] for name in ("message", "plan", "priority")} for row in tickets(400)]
    for n, row in enumerate(rows):
        row["sender"] = ("ada", "ben")[(row["priority"] == "Urgent") != (n % 12 == 0)]
    table = write_csv(tmp_path / "table.csv", rows)
    found = describe(table, tmp_path / "own.yaml")
    assert found.draft.own.features[0].column == "sender"
    assert found.draft.own.test > 0.1
    assert f"test: {found.draft.own.test}" in found.text
    assert any(note.startswith(f"test: {found.draft.own.test}, the share") for note in found.notes)
    own, text = described(tmp_path, [{**row, "sender": "ada"} for row in rows])
    assert own.features[0].column == "plan"
    told = " ".join(text.replace("# ", "").split())
    assert "no more than chance, for want of one that tells more - key: plan" in told


def test_what_is_not_used_is_said_with_the_reason(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    rows = [{**row, "notes": ""} for row in tickets()]
    main(["describe", str(write_csv(tmp_path / "table.csv", rows)), "--out", str(tmp_path / "own.yaml")])
    text = " ".join((tmp_path / "own.yaml").read_text().replace("# ", "").split())
    assert "same (holds one value only), notes (empty)" in text
    printed = capsys.readouterr().out
    assert "'email', 'phone'" in printed or "'phone', 'email'" in printed


def test_a_column_that_a_rare_label_keeps_from_being_used_is_told_with_the_reason(tmp_path):
    """Of 12 urgent tickets 8 come by phone: too few for splits by the channel."""
    rows = [{"message": f"{row['message']} on day {n}", "channel": "email"} for n, row in enumerate(tickets(600))]
    for n, row in enumerate(rows):
        row["priority"] = "Urgent" if n < 12 else "Normal"
        row["channel"] = "phone" if n < 8 or n % 20 == 0 else "email"
    own, text = described(tmp_path, rows)
    assert own.features[0].insert
    told = " ".join(text.partition("features:")[2].replace("# ", "").split())
    assert "Not used: 0.0" in told
    assert "no two values can be balanced, which takes 10 rows with the label" in told
    assert "phone (8 of 37 rows Urgent)" in told


def test_what_is_wrong_with_a_row_ends_its_sentence(tmp_path):
    rows = tickets()
    rows[3]["priority"] = ""
    _, text = described(tmp_path, rows)
    assert "no answer in field 'priority'. They are left out" in " ".join(text.replace("# ", "").split())


def test_columns_beside_the_features_are_told_with_the_reason(tmp_path):
    rows = tickets(600)
    for n, row in enumerate(rows):
        by_channel = "ab"[row["channel"] == "email"]
        row |= {name: by_channel if (n + at) % 9 else "b" for at, name in enumerate(("team", "desk", "floor", "hall"))}
        row["hall"] = row["hall"] if n % 50 else ""
    own, text = described(tmp_path, rows)
    told = " ".join(text.partition("features:")[2].replace("# ", "").split())
    assert len(own.features) == 3
    assert re.search(r"beyond the words; there are 3 features already - key: (team|desk|floor) ", told)
    assert "beyond the words; empty in 12 rows, which only the first feature may be - key: hall" in told
    assert "beyond the words; no more than chance - key: plan" in told


def test_values_of_too_few_rows_are_left_out(tmp_path):
    rows = tickets()
    for n in range(4):
        rows[n]["channel"] = "fax machine"
    own, text = described(tmp_path, rows)
    assert set(own.features[0].values) == {"email", "phone"}
    assert "fax machine (4)" in text
    task = build_task(TaskConfig(name="jsonl", file=str(tmp_path / "own.yaml")), 0)
    assert task.dropped == {"no value of channel": 4}


def test_nothing_is_overwritten_and_the_way_on_is_told(tmp_path, capsys):
    table, out = write_csv(tmp_path / "table.csv", tickets()), tmp_path / "own.yaml"
    main(["describe", str(table), "--out", str(out)])
    printed = capsys.readouterr().out
    assert "taken as" in printed
    assert f"--task.file {out}" in printed.replace("\n", "")
    with pytest.raises(InputError, match="nothing is overwritten"):
        main(["describe", str(table), "--out", str(out)])
