"""Rows in memory become files that a run keeps, and never those of another run."""

import datetime
import json

import numpy as np
import pytest
import yaml

from fit_jax.data.own_data import read_description
from fit_jax.errors import InputError
from fit_jax.runs.run_folder import InUse
from fit_jax.runs.source_rows import keep_rows, leaving_nothing

from ..tickets import TICKETS

DESCRIPTION = {name: value for name, value in TICKETS.items() if name != "files"} | {
    "features": [{"key": "channel", "column": "channel"}]
}


def test_what_a_table_lacks_is_null(tmp_path):
    rows = [{"text": "a", "urgent": np.float32(1), "channel": float("nan"), "hour": np.float32("nan")}]
    keep_rows(tmp_path / "run" / "source", rows, DESCRIPTION)
    assert json.loads((tmp_path / "run" / "source" / "rows.jsonl").read_text()) == {
        "text": "a",
        "urgent": 1,
        "channel": None,
        "hour": None,
    }


def test_rows_of_a_run_that_has_begun_are_kept(tmp_path):
    source = tmp_path / "run" / "source"
    one, other = ([{"text": text, "urgent": "no", "channel": "fax"}] for text in ("a", "b"))
    path = keep_rows(source, one, DESCRIPTION)
    assert keep_rows(source, other, DESCRIPTION) == path  # nothing was trained yet
    (tmp_path / "run" / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a run of other rows or another description"):
        keep_rows(source, one, DESCRIPTION)
    with pytest.raises(InputError, match="holds a run of other rows or another description"):
        keep_rows(source, other, {**DESCRIPTION, "core": "the tone"})
    assert json.loads((source / "rows.jsonl").read_text())["text"] == "b"
    assert keep_rows(source, other, DESCRIPTION) == path


ROW = {"text": "a", "urgent": "no", "channel": "fax"}


def kept(folder, *rows):
    keep_rows(folder / "source", rows, DESCRIPTION)
    return [json.loads(line) for line in (folder / "source" / "rows.jsonl").read_text().splitlines()]


def test_dates_are_written_in_iso_form_and_arrays_as_lists(tmp_path):
    day = datetime.date(2013, 8, 20)
    cells = [day, datetime.datetime(2013, 8, 20, 3, 4), np.datetime64("2013-08-20"), np.datetime64("NaT")]
    assert kept(tmp_path, {**ROW, "cells": cells, "day": day, "n": np.int64(3), "list": np.array(["x", "y"])}) == [
        {
            **ROW,
            "cells": ["2013-08-20", "2013-08-20T03:04:00", "2013-08-20", None],
            "day": "2013-08-20",
            "n": 3,
            "list": ["x", "y"],
        }
    ]


def test_a_table_of_dates_and_gaps_is_kept(tmp_path):
    pandas = pytest.importorskip("pandas", reason="tables of one's own are tried with pandas")
    frame = pandas.DataFrame([ROW, ROW]).assign(
        on=pandas.to_datetime(["2013-08-20", None]), count=pandas.array([1, None], dtype="Int64")
    )
    keep_rows(tmp_path / "source", frame, DESCRIPTION)
    lines = (tmp_path / "source" / "rows.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {**ROW, "on": "2013-08-20T00:00:00", "count": 1}
    assert json.loads(lines[1]) == {**ROW, "on": None, "count": None}
    with pytest.raises(InputError, match="two columns of the rows are called 'on'; rename one"):
        keep_rows(tmp_path / "source", frame.rename(columns={"count": "on"}), DESCRIPTION)


class DatasetDict(dict):
    """As that of `datasets`, a mapping of the parts of a data set."""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROW, {**ROW, "x": object()}], "row 1 of the rows, column 'x': is no text, number, date or list"),
        ([{**ROW, "x": {3}}], r"column 'x': .*\(a value of type set\); convert the column, or leave it out"),
        ([{**ROW, (1, 2): "x"}], "row 0 of the rows, column "),
        ([ROW, ["a", "no"]], "row 1 of the rows is a list, not a mapping; give a list of mappings, a pandas DataFrame"),
        ({"text": ["a"], "urgent": ["no"]}, r"rows is a dict; make rows of its columns, as pandas.DataFrame\(rows\)"),
        (DatasetDict(train=[ROW]), r'rows is a DatasetDict; choose one of its parts, as in rows\["train"\]'),
        ("rows.csv", "rows is a str; name a file in `files` of a description, and set"),
        (3, "rows is a int; give a list of mappings, a pandas DataFrame or a datasets.Dataset"),
    ],
)
def test_what_are_no_rows_is_told_in_a_line_before_anything_is_written(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        keep_rows(tmp_path / "run" / "source", rows, DESCRIPTION)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({"name": "x"}, "description: lacks core"),
        ({**DESCRIPTION, "name": object()}, "description must hold text"),
        ({**DESCRIPTION, "hub": "a/b"}, "names a `hub` data set beside the rows"),
        ({**DESCRIPTION, "features": []}, "description: `features` is empty"),
        (3, "description is a int; give a mapping, or the path of a description"),
        ("none.yaml", "none.yaml cannot be read: [^;]*; name a readable YAML file$"),
        ("own/table.CSV", r"table\.CSV: is a table and no description; .* describe own/table\.CSV writes one"),
    ],
)
def test_what_is_no_description_is_told_in_a_line_before_anything_is_written(tmp_path, description, said):
    with pytest.raises(InputError, match=said):
        keep_rows(tmp_path / "run" / "source", [ROW], description)
    assert not (tmp_path / "run").exists()


def test_a_description_may_be_given_by_its_path(tmp_path):
    """What it names beside itself is found from the run folder too; the rows are in the place of its files."""
    features = [*DESCRIPTION["features"], {"key": "own", "function": "own.py:f"}, {"key": "s", "function": "os:f"}]
    given = {**DESCRIPTION, "files": ["table.csv"], "test_files": ["test.jsonl"], "features": features}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(given))
    for path in (tmp_path / "own.yaml", str(tmp_path / "own.yaml")):
        own = read_description(keep_rows(tmp_path / "run" / "source", [ROW], path))
        assert (own.files, own.test_files) == (("rows.jsonl",), (str(tmp_path / "test.jsonl"),))
        assert [f.function for f in own.features] == [None, f"{tmp_path}/own.py:f", "os:f"]
        assert own.candidates == tuple(DESCRIPTION["candidates"])


def fail(folder, error=InputError):
    def work():
        keep_rows(folder / "source", [ROW], DESCRIPTION)
        (folder / "config.yaml").touch()
        raise error("wrong")

    with pytest.raises(error), leaving_nothing(folder):
        work()


def test_a_call_that_fails_leaves_what_was_there_before(tmp_path):
    fail(tmp_path / "a" / "run")
    assert not (tmp_path / "a").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    fail(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_a_call_that_fails_leaves_a_run_that_has_begun_and_one_of_another_process(tmp_path):
    fail(tmp_path / "used", InUse)
    (tmp_path / "begun" / "checkpoints" / "20").mkdir(parents=True)
    fail(tmp_path / "begun")
    for name in ("used", "begun"):
        assert (tmp_path / name / "source" / "rows.jsonl").exists()
