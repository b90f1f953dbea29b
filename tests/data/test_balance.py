"""What setting rho leaves out: the account adds up, is told, and is drawn as it is."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.balance import Balance, balance_picture, balance_rows, balances_of
from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.data.splits import GroupCount, Sizes, build_splits
from fit_jax.data.summary import summarise
from fit_jax.data.task import Task
from fit_jax.focus.example import Example, Spurious, TaskText


@pytest.fixture(scope="module")
def task():
    """1,000 rows, in which nine of ten with the value `a` have the label `yes`."""
    rng = np.random.default_rng(0)
    value = rng.integers(0, 2, 1000)
    outcome = np.where(rng.random(1000) < 0.9, 1 - value, value)

    def example(row, v):
        tie = Spurious("ab"[v], 1 - v)
        return Example(f"r{row}", {"text": f"t{row}"}, ("no", "yes"), int(outcome[row]), {"f": tie})

    values = (Value("f", "a", 1), Value("f", "b", 0))
    rows = Rows(
        outcomes=("no", "yes"), outcome=outcome, key=np.arange(1000), values=values, value=value, example=example
    )
    splits, notes = build_splits(TaskConfig(), 0, Sizes(800, 100, 100), rows)
    text = TaskText(name="t", instruction="", input_template="{text}", cue="", core="c", spurious={"f": "f"})
    return Task(text=text, splits=splits, notes=notes)


def test_the_account_adds_up(task):
    found = {balance.split: balance for balance in balances_of(task)}
    assert found.keys() == task.splits.keys()
    for name, balance in found.items():
        examples = task.splits[name].examples
        assert balance.kept == len(examples) == sum(cell.drawn for cell in balance.cells)
        for cell in balance.cells:
            here = [
                e for e in examples if e.spurious["f"].value == cell.value and e.candidates[e.label] == cell.outcome
            ]
            assert cell.drawn == len(here) <= cell.available
    train = found["train"]
    assert sum(found[name].available for name in ("train", "validation", "iid")) == 1000
    assert train.kept < 0.3 * train.available
    rare = [cell for cell in train.cells if (cell.value, cell.outcome) in (("a", "no"), ("b", "yes"))]
    assert all(cell.drawn == cell.available for cell in rare)


def test_it_is_said_how_many_rows_are_left_out(task):
    train = next(balance for balance in balances_of(task) if balance.split == "train")
    left = train.available - train.kept
    share = f"{left / train.available:.0%}"
    (note,) = (note for note in task.notes if note.startswith("split train:"))
    assert f": {left} of its {train.available} rows ({share}) are left out to keep rho at 0.5;" in note
    assert train.words == f"train: {left:,} of {train.available:,} rows ({share}) are left out, {train.kept:,} stay"
    assert train in summarise(task, 0, str)["balance"]


def test_the_picture_shows_the_numbers_to_scale():
    cells = (GroupCount("<b>", "yes", 400, 100), GroupCount("<b>", "no", 100, 100), GroupCount("c", "yes", 0, 0))
    picture = ElementTree.fromstring(balance_picture(Balance("train", 500, 200, cells)))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.find(f"{space}title").text == "train: 300 of 500 rows (60%) are left out, 200 stay"
    widths = [float(bar.get("width")) for bar in picture.iter(f"{space}rect") if bar.get("x") == "260.0"][1:]
    assert widths == pytest.approx([rows * widths[0] / 400 for rows in (400, 100, 100, 100)], rel=1e-3)
    told = [text.text for text in picture.iter(f"{space}text")]
    assert {"<b>, yes", "100 of 400", "100 of 100"} <= set(told)
    assert not any("c, yes" in text for text in told)


def test_the_table_shows_the_largest_cells():
    cells = tuple(GroupCount(f"v{n}", "yes", n, n // 2) for n in range(40))
    rows = balance_rows(Balance("train", 780, 380, cells))
    assert [row[0] for row in rows] == [f"v{n}" for n in range(16, 40)]
    assert rows[-1][2:5] == ("39", "19", "20")
    assert re.fullmatch("█{10}░{10}", rows[-1][5])
