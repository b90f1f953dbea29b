"""Dates and numbers are what they are in any spelling, and what a column of them tells of the label with them."""

import datetime
import random

import numpy as np
import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.audit import SourceTable, label_evidence
from fit_jax.data.describing import describe
from fit_jax.data.quantities import days, numbers
from fit_jax.data.tasks.jsonl import raw_table

from .ticket_tables import tickets, write_csv

DATES = {
    "iso": "%Y-%m-%d",
    "stamp": "%Y-%m-%d 00:00:00",
    "slashes": "%Y/%m/%d",
    "points": "%d.%m.%Y",
    "british": "%d/%m/%Y",
    "american": "%m/%d/%y",
    "half": "%m/%d/%Y 12:00 AM",
    "dashes": "%d-%m-%Y",
}
PRICES = {
    "plain": "{:.2f}",
    "english": "{:,.2f}",
    "spaced": "{:,.2f}",
    "german": "{:,.2f}",
    "french": "{:,.2f}",
    "swiss": "{:,.2f}",
}
MARKS = {"spaced": " .", "german": ".,", "french": "\u202f,", "swiss": "\u2019."}


def spelled(price, way):
    text = PRICES[way].format(price)
    return text.translate(str.maketrans(",.", MARKS[way])) if way in MARKS else text


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Tickets of which the older and the dearer are urgent more often, each date and price in all spellings."""
    rng = random.Random(5)
    rows = []
    for row in tickets(500):
        often = rng.random() < 0.9
        urgent = row["priority"] == "Urgent"
        day = datetime.date(2010 + 3 * (urgent == often), 1, 1) + datetime.timedelta(rng.randrange(1000))
        price = round((1200 if urgent == often else 300) * rng.uniform(0.5, 3), 2)
        dates = {f"date {name}": day.strftime(form) for name, form in DATES.items()}
        prices = {f"price {way}": spelled(price, way) for way in PRICES}
        rows.append({name: row[name] for name in ("message", "channel", "priority")} | dates | prices)
    return write_csv(tmp_path_factory.mktemp("quantities") / "table.csv", rows)


def check(evidence):
    for kind, names in (("date", DATES), ("price", PRICES)):
        found = [row for row in evidence if f"column {kind} " in row.name]
        assert len(found) == len(names)
        assert {row.bits for row in found} == {found[0].bits}
        assert found[0].bits > 0.1
        assert all(row.passes for row in found)


def test_all_spellings_of_the_same_values_tell_the_same_bits_in_describe_and_in_the_audit(table):
    out = table.parent / "own.yaml"
    found = describe(table, out)
    check(found.draft.evidence)
    assert {role for name, role in found.draft.roles.items() if name.startswith("date")} == {"holds dates"}
    assert {role for name, role in found.draft.roles.items() if name.startswith("price")} == {"holds numbers"}
    out.write_text(found.text, encoding="utf-8")
    raw = raw_table(TaskConfig(name="jsonl", file=str(out)))
    check(label_evidence(raw.task.splits["train"].examples, SourceTable(raw.row, raw.described)))


def read(cells):
    return [None if np.isnan(day) else str(datetime.date.fromordinal(int(day))) for day in days(cells)]


@pytest.mark.parametrize(
    ("cells", "dates"),
    [
        (["03.04.2013", "20.08.2013"], ["2013-04-03", "2013-08-20"]),
        (["3/4/13", "8/20/13"], ["2013-03-04", "2013-08-20"]),
        (["3/4/13", "20/8/13"], ["2013-04-03", "2013-08-20"]),
        (["03.04.2013"], ["2013-04-03"]),
        (["03-04-2013"], ["2013-04-03"]),
        (["03/04/2013"], ["2013-03-04"]),
        (["8/20/13", "20/8/13", "3/4/13"], ["2013-08-20", "2013-08-20", "2013-03-04"]),
        (["1/2/68", "1/2/69"], ["2068-01-02", "1969-01-02"]),
        (["2013-08-20T11:30:00Z", "2013-13-20", "30.02.2013", "soon", "1.2.3"], ["2013-08-20", *[None] * 4]),
    ],
)
def test_a_column_tells_whether_the_day_stands_first(cells, dates):
    assert read(cells) == dates


def test_times_of_a_day_stand_in_their_order():
    noon, evening, night = days(["8/20/13 12:00 PM", "2013-08-20 15:45:30", "8/20/13 3:45:31 pm"]) % 1
    assert 0.5 == noon < evening < night


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["94,29", "1.234"], [94.29, 1234]),
        (["94.29", "1,234"], [94.29, 1234]),
        (["1.234", "1.234.567"], [1234, 1234567]),
        (["1,234", "1,234,567"], [1234, 1234567]),
        (["1,234"], [1234]),
        (["1.234"], [1.234]),
        (["0,125", "1,250"], [0.125, 1.25]),
        (["1.234,5", "-1,5e3", "+,5"], [1234.5, -1500, 0.5]),
        (["94,29", "94.29"], [94.29, 94.29]),
        (["1 234,5", "12 34", "10.0.0.1", "1,23,4", "5 pounds", ""], [1234.5, *[np.nan] * 5]),
        ([3, 2.5, "2,5", None, ["x"]], [3, 2.5, 2.5, np.nan, np.nan]),
    ],
)
def test_a_column_tells_its_decimal_mark(cells, values):
    np.testing.assert_array_equal(numbers(cells), values)
