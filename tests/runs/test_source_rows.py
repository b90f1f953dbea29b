"""Rows in memory become files that a run keeps, and never those of another run."""

import json

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.runs.source_rows import keep_rows

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
