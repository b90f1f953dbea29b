"""Where the value of a feature of one's own data comes from: a column, keywords, or a Python function of the row."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

from fit_jax.data.own_data import FeatureConfig
from fit_jax.foreign import check_regular, shown
from fit_jax.user_code import guarded

# Characters of a function's name that a line has room for: its end.
_OF_FUNCTION = 40
# A feature's value in a row, or None where the row has none.
ValueOf = Callable[[Mapping[str, Any]], str | None]


def value_of(feature: FeatureConfig, slots: tuple[str, ...], folder: Path) -> ValueOf:
    """The function that finds a feature's value in a row; `folder` is where a `file.py` is looked for.

    Raises:
        InputError: The Python function cannot be found.
    """
    if feature.column:
        column = feature.column
        return lambda row: None if _is_gap(row.get(column)) else str(row[column])
    if feature.keywords:
        words = feature.keywords
        # A group for each, so that the one found is known whatever the case folds to.
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(f'({re.escape(word)})' for word in words)})(?!\w)", re.IGNORECASE)

        def keyword(row: Mapping[str, object]) -> str | None:
            found = pattern.search(" ".join(str(row.get(slot, "")) for slot in slots))
            return words[found.lastindex - 1] if found and found.lastindex else None

        return keyword
    assert feature.function
    return _function(feature, folder)


def _is_gap(value: object) -> bool:
    return value in (None, "") or (isinstance(value, float) and isnan(value))  # NaN is what pandas puts there


def _function(feature: FeatureConfig, folder: Path) -> ValueOf:
    place, _, name = str(feature.function).partition(":")
    end = str(feature.function)[-_OF_FUNCTION:]
    here = f"feature {feature.key}: function {shown(end)!r}"
    remedy = "write package.module:name, or file.py:name relative to the description"
    with guarded(f"{here} cannot be loaded", remedy):
        if place.endswith(".py"):
            check_regular(folder / place, "name a file with the function")
            spec = importlib.util.spec_from_file_location(f"own_data_{feature.key}", folder / place)
            assert spec is not None, "a name in .py"
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        function = getattr(module, name)

    def value(row: Mapping[str, object]) -> str | None:
        with guarded(f"{here} failed", "fix the function", row):
            found = function(dict(row))  # which it may change
            return None if found is None else str(found)

    return value
