"""`data describe`: what it writes can be used as it is, whatever the table; each column is considered and explained."""

import csv
import json
import random
import re

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.__main__ import main
from fit_jax.data.describing import describe
from fit_jax.data.own_data import read_description
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

URGENT = ("the shop is down and nothing can be ordered", "payments fail since this morning")
CALM = ("how do I change my address", "a question about my invoice")


def ticket(n, rng):
    urgent = rng.random() < 0.5
    channel = "email" if (rng.random() < 0.8) == urgent else "phone"
    text = f"{rng.choice(URGENT if urgent else CALM)}, order {n}"
    return {
        "ticket": f"T{n}",
        "message": text,
        "channel": channel,
        "plan": rng.choice(("free", "pro")),
        "price": f"{rng.random() * 90:.2f}",
        "code": "12"[urgent],
        "same": "always",
        "priority": ("Normal", "Urgent")[urgent],
    }


def tickets(count=300, seed=0):
    rng = random.Random(seed)
    return [ticket(n, rng) for n in range(count)]


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


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
    """Of so few rows against the shortcut a tenth is none for some test split."""
    rows = [{"message": row["message"], "priority": row["priority"]} for row in tickets(400)]
    for n, row in enumerate(rows):
        row["sender"] = ("ada", "ben")[(row["priority"] == "Urgent") != (n % 12 == 0)]
    table = write_csv(tmp_path / "table.csv", rows)
    found = describe(table, tmp_path / "own.yaml")
    assert found.draft.own.features[0].column == "sender"
    assert found.draft.own.test > 0.1
    assert f"test: {found.draft.own.test}" in found.text
    assert any(note.startswith(f"test: {found.draft.own.test}, the share") for note in found.notes)


def test_what_is_not_used_is_said_with_the_reason(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    rows = [{**row, "notes": ""} for row in tickets()]
    main(["describe", str(write_csv(tmp_path / "table.csv", rows)), "--out", str(tmp_path / "own.yaml")])
    text = " ".join((tmp_path / "own.yaml").read_text().replace("# ", "").split())
    assert "same (holds one value only), notes (empty)" in text
    printed = capsys.readouterr().out
    assert "'email', 'phone'" in printed or "'phone', 'email'" in printed


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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("table.xlsx", "", "none of .jsonl, .csv"),
        ("table.csv", "text;label\na b c;yes\n", "save it with commas"),
        ("table.csv", "text,label\n", "holds no row"),
        ("table.csv", "a,b\n" + "1,2\n" * 40, "no column holds texts"),
        ("table.csv", "a,b\n" + "one two three,2\nfour five six,2\n" * 20, "that could be a label"),
        ("none.csv", None, "No such file"),
        (
            "table.jsonl",
            '{"text": "a b c", "label": "x"}\n{"text": "d e f", "label": "y"}\n' * 3,
            "answers that could be",
        ),
        ("table.csv", "user.text,label\n" + "a b c,x\nd e f,y\n" * 20, "no column holds texts"),
    ],
)
def test_a_table_of_which_nothing_can_be_made(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        describe(tmp_path / name, tmp_path / "own.yaml")


ODD = ["", " ", "NA", "yes", "No", "yes ", "caf\u00e9", "cafe\u0301", "\uff59\uff45\uff53", "3", "-1.5", "nan", "true"]
ODD += [
    "2024-01-31",
    "a: b",
    "# x",
    "'",
    '"',
    "{x}",
    "\u202e",
    "\ufffd",
    "- y",
    "null",
    "a, b; c",
    "one two three four",
]
CELLS = st.sampled_from([*ODD, "\U0001f600 great", "x" * 300])
HEADS = [
    "text",
    "label",
    "",
    " class ",
    "a.b",
    "{x}",
    "y",
    "core",
    "0",
    "id",
    "caf\u00e9",
    "a b",
    "no",
    "a:b",
    "#",
    "&",
]
NAMES = st.sampled_from([*HEADS, "&", "text (raw)", "'q'"])


@st.composite
def messy_tables(draw):
    """A table that has texts and labels among columns of anything, with spoilt cells; and its format."""
    rng = random.Random(draw(st.integers(0, 2**20)))
    rows = tickets(draw(st.sampled_from((0, 2, 25, 90))), rng.random())
    renamed = draw(st.dictionaries(st.sampled_from(("message", "channel", "plan", "priority")), NAMES, max_size=3))
    extra = draw(st.dictionaries(NAMES, st.lists(CELLS, min_size=1, max_size=6), max_size=3))
    spoilt = draw(st.lists(CELLS, min_size=1, max_size=5))
    share = draw(st.sampled_from((0, 0.02, 0.3)))
    messy = []
    for row in rows:
        cells = {renamed.get(name, name): cell for name, cell in row.items()} | {
            n: rng.choice(c) for n, c in extra.items()
        }
        messy.append({name: rng.choice(spoilt) if rng.random() < share else cell for name, cell in cells.items()})
    kind = draw(st.sampled_from(("csv", "tsv", "jsonl")))
    if kind == "jsonl":
        odd = draw(st.lists(st.sampled_from((None, 1, 2.5, True, ["a", "b"], {"k": 1}, float("inf"))), max_size=3))
        messy = [{n: rng.choice(odd) if odd and rng.random() < share else c for n, c in row.items()} for row in messy]
    return kind, messy


@given(messy_tables())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_gives_a_description_that_can_be_used_or_one_line(tmp_path, table):
    kind, rows = table
    path, out = tmp_path / f"table.{kind}", tmp_path / "own.yaml"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=",\t"[kind == "tsv"])
            writer.writerow(rows[0] if rows else [])
            writer.writerows(row.values() for row in rows)
    try:
        text = describe(path, out).text
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
        return
    out.write_text(text, encoding="utf-8")
    assert set(yaml.safe_load(text)) >= {"name", "files", "label", "features"}
    task = build_task(TaskConfig(name="jsonl", file=str(out)), 0)
    assert all(len(split.examples) for split in task.splits.values())
