"""`data describe` of odd tables: what it writes can be used, or one line says why nothing can be made of them."""

import csv
import json
import random

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.describing import describe
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

from .ticket_tables import tickets, write_csv


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("table.xlsx", "", "none of .jsonl, .csv"),
        ("table.csv", "text|label\na b c|yes\n", "save it with commas"),
        ("table.csv", "text,label\n", "holds no row"),
        ("table.csv", "text,größe,label\n" + "a b c,1,x\nd e f,2,y\n" * 40, "column names is no UTF-8"),
        ("table.csv", "a,b\n" + "1,2\n" * 40, "no column holds texts"),
        ("table.csv", "a,b\n" + "one two three,2\nfour five six,2\n" * 20, "that could be a label"),
        ("none.csv", None, "No such file"),
        (
            "table.jsonl",
            '{"text": "a b c", "label": "x"}\n{"text": "d e f", "label": "y"}\n' * 3,
            "answers that could be",
        ),
        (
            "table.csv",
            "text,label\n" + "the parcel came late again,x\nall of it was fine today,y\n" * 60,
            "from the 120 rows .* which hold only 2 different texts .*; give rows of other texts",
        ),
        ("table.csv", "user.text,label\n" + "a b c,x\nd e f,y\n" * 20, "no column holds texts"),
    ],
)
def test_a_table_of_which_nothing_can_be_made(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=said):
        describe(tmp_path / name, tmp_path / "own.yaml")


def test_the_line_of_a_table_stays_short_where_its_folder_has_a_long_name(tmp_path):
    folder = tmp_path / ("f" * 200)
    folder.mkdir()
    for name, content, said in (
        ("table.xlsx", "", "is none of"),
        ("table.csv", "text|label\na b c|yes\n", "has the one column"),
        ("table.csv", "text,label\n", "holds no row"),
        ("table.csv", "a,b\n" + "1,2\n" * 40, "no column holds texts"),
        ("table.csv", "a,b,a\n1,2,3\n", "appears twice"),
    ):
        (folder / name).write_text(content)
        with pytest.raises(InputError, match=rf"^\.\.\.f{{50,}}/{name}: .*{said}"):
            describe(folder / name, tmp_path / "own.yaml")


def test_a_table_with_semicolons_is_read_as_the_one_with_commas(tmp_path):
    rows = tickets()
    columns = ["text, as it came", *list(rows[0])[1:]]
    found = []
    for folder, mark, names in (("a", ",", columns), ("b", ";", [columns[0].replace(",", ""), *columns[1:]])):
        (tmp_path / folder).mkdir()
        with open(tmp_path / folder / "table.csv", "w", newline="") as file:
            writer = csv.writer(file, delimiter=mark)
            writer.writerows([names, *([*row.values()] for row in rows)])
        found.append(describe(tmp_path / folder / "table.csv", tmp_path / folder / "own.yaml").text)
    assert found[0].replace(", as it came", " as it came") == found[1]


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


@pytest.mark.parametrize("column", ["priority", "ticket", "channel", "message"])
def test_a_column_without_a_name_is_neither_label_nor_anything_else(tmp_path, column):
    rows = [{"" if name == column else name: cell for name, cell in row.items()} for row in tickets(90)]
    path, out = write_csv(tmp_path / "t.csv", rows), tmp_path / "own.yaml"
    if column == "message":
        with pytest.raises(InputError, match="no column holds texts"):
            describe(path, out)
        return
    own = describe(path, out).draft.own
    assert own.label == ("code" if column == "priority" else "priority")
    assert own.uid == (None if column == "ticket" else "ticket")
    assert all(feature.column != "" for feature in own.features)


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
