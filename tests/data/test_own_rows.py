"""Rows and functions of one's own data that are not as they should be: one line, soon, and nothing is run or lost."""

import json
import os

import pytest
import yaml

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed
from fit_jax.data.tasks.jsonl import raw_table
from fit_jax.errors import InputError

from ..tickets import TICKETS

BASE = {
    **TICKETS,
    "uid": "id",
    "features": [{"key": "channel", "column": "channel"}],
}
ROWS = [{"id": f"t{n}", "text": f"Ticket {n}", "urgent": ("no", "yes")[n % 2], "channel": "mail"} for n in range(8)]


@pytest.fixture
def read(tmp_path):
    """Reads rows with a description whose fields are given."""

    def read(rows=ROWS, files=("rows.jsonl",), **description):
        if isinstance(rows, bytes):
            (tmp_path / files[0]).write_bytes(rows)
        elif rows is not None:
            (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({**BASE, "files": list(files), **description}))
        return raw_table(TaskConfig(name="jsonl", file=str(path))).task.splits["train"].examples

    return read


@pytest.mark.parametrize("field", ["id", "channel", "text", "urgent"])
def test_half_a_character_is_told_before_training(read, field):
    with pytest.raises(InputError, match=r"rows.jsonl:9: .*(half of a character|is none of no, yes)"):
        read([*ROWS, {**ROWS[0], "id": "new", field: "a\ud800"}])


@pytest.mark.parametrize(
    ("line", "said"),
    [('{"id": ' + "9" * 5000 + "}", "4300 digits"), ("[" * 10**5, "nested too deeply"), ("NaN", "a JSON float")],
)
def test_a_line_that_is_no_object_is_counted(read, line, said):
    with pytest.raises(InputError, match=f"1 malformed row: .*rows.jsonl:2: .*{said}"):
        read((json.dumps(ROWS[0]) + "\n" + line + "\n").encode())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,text\nt1,a\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("id,text\nt1,a\n".encode("utf-16-le"), "is UTF-16; save it as UTF-8"),
        ("id,text\nt1,a\n".encode("utf-16-be"), "is UTF-16; save it as UTF-8"),
        ("id,text,urgent,channel\nt1,é,no,mail\n".encode("latin-1"), r"rows\.csv:2: .*save the file as UTF-8"),
        ("id,text,urgent,channel,né\nt1,a,no,mail,b\n".encode("latin-1"), r"rows\.csv: the line of column names is no"),
        (b"id,text,urgent,channel\rt1,a,no,mail\r", "ordinary line ends"),
        (b"id,text,urgent,channel,text\nt1,a,no,mail,b\n", "'text' appears twice"),
    ],
)
def test_a_table_of_another_encoding_is_told(read, content, said):
    with pytest.raises(InputError, match=said):
        read(content, files=("rows.csv",))


def test_a_row_over_several_lines_is_told_by_where_it_begins(read):
    head = 'id,text,urgent,channel\nt1,a,no,mail\nt2,"b\nb",no,mail\n\n'
    with pytest.raises(InputError, match=r"1 malformed row: [^ ]*rows\.csv:6: 2 fields .*, up to line 8 by a quote"):
        read((head + 't3,"a,no,mail\nt4,a,no,mail\nt5,a,no,mail\n').encode(), files=("rows.csv",))
    with pytest.raises(InputError, match=r"1 malformed row: [^ ]*rows\.csv:3: urgent 'n' is"):
        read(head.replace('b",no', 'b",n').encode(), files=("rows.csv",))


def test_bad_text_in_parquet_is_told(read, tmp_path):
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.array([b"\xff", b"good"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet cannot be read: 'utf-8' codec"):
        read(None, files=("rows.parquet",))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_what_never_ends_is_no_data(read, tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(InputError, match="not a regular file"):
            read(files=(f"{name}.{suffix}",))


@pytest.mark.parametrize("name", ["a" * 300 + ".jsonl", "none.jsonl", "\0.jsonl"])
def test_names_that_no_file_has_are_told(read, name):
    with pytest.raises(InputError):
        read(files=(name,))


def test_words_that_fold_together(read):
    with pytest.raises(InputError, match="'s' and 'ſ', which differ in case alone"):
        read(features=[{"key": "hurry", "keywords": ["s", "ſ"]}])
    with pytest.raises(InputError, match="none of them empty"):
        read(features=[{"key": "hurry", "keywords": ["now", " "]}])
    rows = [*ROWS, {**ROWS[0], "id": "new", "text": "aſap, please"}]
    (example,) = read(rows, features=[{"key": "hurry", "keywords": ["later", "ASAP"], "labels": {"ASAP": "yes"}}])
    assert example.spurious["hurry"].value == "ASAP"


def test_answers_are_counted_in_16_bits(read):
    rows = [{**ROWS[0], "answers": [f"a{n}" for n in range(32768)]}]
    feature = {**BASE["features"][0], "label_column": "urgent"}
    with pytest.raises(InputError, match="more than 32767 answers"):
        read(rows, candidates=[], candidates_column="answers", features=[feature])


@pytest.mark.parametrize("template", ["{text.__class__}", "{text[0]}"])
def test_an_input_reaches_into_no_value(read, template):
    with pytest.raises(InputError, match="rename the column"):
        read(input=template)


@pytest.mark.parametrize(
    "body",
    [
        "def f(row): raise BaseException('bad')",
        "def f(row): import os; os._exit(0)",
        "import os\nos._exit(0)",
        "from os import _exit\ndef f(row): _exit(0)",
        "raise SystemExit(0)",
        "def f(row):\n    class A:\n        def __str__(self): raise BaseException('bad')\n    return A()",
        "def f(row): return f(row)",
    ],
)
def test_a_function_cannot_end_the_command(read, tmp_path, body):
    leave = os._exit
    (tmp_path / "own.py").write_text(body + "\n")
    with pytest.raises(InputError, match=r"^feature channel: function 'own.py:f' (failed|cannot be loaded) \([^\n]+$"):
        read(features=[{"key": "channel", "function": "own.py:f"}])
    assert os._exit is leave


def test_a_keyword_is_a_whole_word(read):
    rows = [{**ROWS[n], "text": text} for n, text in enumerate(("snow", "nowhere", "do it (now)", "Now!"))]
    found = read(rows, features=[{"key": "hurry", "keywords": ["now"], "labels": {"now": "yes"}}])
    assert [example.uid for example in found] == ["t2", "t3"]


def test_a_gap_of_a_column_is_no_value(read):
    """As pandas writes gaps; the column of the first feature must be there."""
    rows = [{**ROWS[0], "id": "a", "channel": float("nan")}, {**ROWS[0], "id": "b", "channel": None}, *ROWS[1:]]
    assert [example.uid for example in read(rows)] == [row["id"] for row in ROWS[1:]]


def test_what_a_function_does_to_its_row_is_forgotten(read, tmp_path):
    (tmp_path / "own.py").write_text("def f(row):\n    row.pop('id')\n    return row['channel']\n")
    found = read(features=[{"key": "channel", "function": "own.py:f"}])
    assert [example.uid for example in found] == [row["id"] for row in ROWS]


def test_a_row_with_fields_left_out_is_told(read):
    with pytest.raises(InputError, match=r"rows\.csv:3: 3 fields where the header has 4"):
        read(b"id,text,urgent,channel\nt1,a,no,mail\nt2,b,no\n", files=("rows.csv",))


def test_a_whole_float_is_the_number_of_an_answer(read):
    """As pandas writes whole numbers of which one is missing."""
    examples = read([{**row, "urgent": n % 2 / 1} for n, row in enumerate(ROWS)])
    assert [example.label for example in examples] == [0, 1] * 4
    examples = read([{**row, "urgent": 1 + n % 2 / 1} for n, row in enumerate(ROWS)], candidates=["1", "2"])
    assert [example.label for example in examples] == [0, 1] * 4
    for wrong in (0.5, 2.0, float("inf")):
        with pytest.raises(InputError, match=f"urgent {wrong} is none of no, yes"):
            read([{**ROWS[0], "urgent": wrong}])


def test_where_every_row_is_skipped_the_reason_is_told(read):
    with pytest.raises(InputError, match=r"no row is left of the data: 1 malformed row skipped: .* is none of no, yes"):
        read([{**ROWS[0], "urgent": "perhaps"}], malformed="skip")


def test_the_line_stays_short_where_a_folder_has_a_long_name(tmp_path):
    """The first row has its folder before it, as far as it fits; the next ones are of the same place."""
    folder = tmp_path / ("deep" * 30) / ("folder" * 20)
    folder.mkdir(parents=True)
    path, config = folder / "own.yaml", TaskConfig(name="jsonl", file=str(folder / "own.yaml"))
    many = {f"{n}{'b' * 99}": n for n in range(30)}
    channel = BASE["features"]
    for changed, rows, wrong in (
        ({"features": []}, ROWS, r"/own\.yaml: `features` is empty"),
        ({"input": "x" * 300}, ROWS, r"/own\.yaml: input 'x+\.*' uses no column"),
        ({"features": [{"key": "k" * 99}]}, ROWS, r"/own\.yaml: feature k+\.*: give exactly one of"),
        (
            {"features": [{**channel[0], "labels": {"mail": "z" * 99}}]},
            ROWS,
            r"label 'z+\.*' is none of no, yes; change",
        ),
        ({}, [{**ROWS[0], "urgent": "x" * 99}], r"/rows\.jsonl:1: urgent 'x+\.*' is none of no, yes"),
        ({}, [{**ROWS[0], "urgent": "x"}] * 3, r"/rows\.jsonl:1: .* rows\.jsonl:2: urgent 'x' is none"),
        ({"candidates": [*many]}, ROWS[:1], r"urgent 'no' is none of 0b+\.* and 29 more"),
        (
            {"features": [{"key": "a", "column": "c" * 99}]},
            [{**row, **many} for row in ROWS],
            r"rows\.jsonl:8 has a column",
        ),
    ):
        path.write_text(yaml.safe_dump({**BASE, "files": ["rows.jsonl"], **changed}))
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(InputError, match=wrong) as told:
            raw_table(config)
        before = str(told.value).rpartition("; ")[0] or str(told.value)
        assert len(before) <= 200, before
        assert before.count("folder/") == 1, before


def test_rows_of_several_folders_are_each_named_with_theirs(tmp_path):
    bad = Malformed("error")
    for place in ("a/rows.jsonl:1", "a/rows.jsonl:2", "b/rows.jsonl:3", "a/\x1b.jsonl:4"):
        bad.add(place, "bad")
    with pytest.raises(
        InputError, match=r"^4 malformed rows: a/rows\.jsonl:1: bad; rows\.jsonl:2: bad; b/rows\.jsonl:3: bad; \.\.\.; "
    ):
        bad.settle()
    odd = Malformed("error")
    for place in ("a/\x1b.jsonl:1", "a/\x1b.jsonl:2"):
        odd.add(place, "bad")
    with pytest.raises(InputError) as told:
        odd.settle()
    assert str(told.value).isprintable()
