"""Dates and numbers of a column in any usual spelling, as numbers of which the larger is the later or the greater.

A cell often leaves open how it is read: 03.04.2013 may be in March or in April, 1,234 may be a thousand or one. Its
column tells: the cells that can be read in one way alone decide for those that can be read in both. Where no cell
tells, or as many tell one as the other, the day stands first but in dates with slashes, which are read as month/day,
and the point is the decimal mark.
"""

import math
import re
from collections.abc import Sequence
from datetime import date

import numpy as np

_DATE = re.compile(
    r"(?:(?P<year>\d{4})(?P<mark>[-./])(?P<month>\d\d?)(?P=mark)(?P<day>\d\d?)"
    r"|(?P<first>\d\d?)(?P<between>[-./])(?P<second>\d\d?)(?P=between)(?P<last>\d{4}|\d\d))(?!\d)"
    r"(?:[T ,]+(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<seconds>\d\d(?:\.\d+)?))? ?(?P<half>[AaPp][Mm])?)?"
)
# A year of two digits from here on is of the 20th century, as in POSIX.
_PIVOT = 69
_GROUPED = re.compile(r"(?<=\d)[\s'’](?=\d{3}(?!\d))")
_MARKED = re.compile(r"[-+]?(?P<whole>\d*)(?P<rest>(?:[.,]\d+)+)(?:[eE][-+]?\d+)?")


def days(cells: Sequence[str]) -> np.ndarray:
    """(N,) days since the year 1 of each date, with the share of the day that its time says; NaN where it is none."""
    found = [_DATE.match(cell.strip()) for cell in cells]
    pairs = [(int(m["first"]), int(m["second"])) for m in found if m and m["first"]]
    slashes = sum(m["between"] == "/" for m in found if m and m["first"])
    tell = sum((first > 12) - (second > 12) for first, second in pairs)
    day_first = tell > 0 or (tell == 0 and 2 * slashes <= len(pairs))
    return np.array([_day(m, day_first) if m else math.nan for m in found], float)


def _day(found: re.Match[str], day_first: bool) -> float:
    if found["year"]:
        year, month, day = int(found["year"]), int(found["month"]), int(found["day"])
    else:
        year, month, day = int(found["last"]), int(found["second"]), int(found["first"])
        if day <= 12 and (month > 12 or not day_first):
            month, day = day, month
        if len(found["last"]) == 2:
            year += 1900 if year >= _PIVOT else 2000
    try:
        number = date(year, month, day).toordinal()
    except ValueError:
        return math.nan
    hour, minute, seconds = (float(found[name] or 0) for name in ("hour", "minute", "seconds"))
    if found["half"]:
        hour = hour % 12 + 12 * (found["half"].lower() == "pm")
    return number + (hour * 60 + minute) / 1440 + seconds / 86400


def numbers(cells: Sequence[object]) -> np.ndarray:
    """(N,) each cell's number, with a decimal point or comma and thousands in groups; NaN where it is none."""
    texts = [_GROUPED.sub("", cell.strip()) if isinstance(cell, str) else cell for cell in cells]
    marks = [_decimal_mark(text) if isinstance(text, str) else None for text in texts]
    usual = "," if marks.count(",") > marks.count(".") else "."
    return np.array([_number(text, mark or usual) for text, mark in zip(texts, marks)], float)


def _decimal_mark(text: str) -> str | None:
    """The decimal mark of a number that can be read in one way alone."""
    found = _MARKED.fullmatch(text)
    if found is None:
        return None
    rest = found["rest"]
    commas, points = rest.count(","), rest.count(".")
    if commas and points:  # the last one
        return "," if rest.rfind(",") > rest.rfind(".") else "."
    mark, other = (",", ".") if commas else (".", ",")
    if commas + points > 1:
        return other
    grouped = len(rest) == 4 and 1 <= len(found["whole"]) <= 3 and not found["whole"].startswith("0")
    return None if grouped else mark


def _number(value: object, decimal: str) -> float:
    if isinstance(value, str) and _MARKED.fullmatch(value):
        whole, mark, fraction = value.rpartition(decimal)
        groups = re.split("[.,]", whole if mark else fraction)
        if not all(len(group) == 3 for group in groups[1:]):
            return math.nan
        value = "".join(groups) + (f".{fraction}" if mark else "")
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        return math.nan
