"""Where the value of a feature of one's own data comes from: a column, keywords, or a Python function of the row."""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any

from fit_jax.data.own_data import FeatureConfig
from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, shown

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
    here = f"feature {feature.key}: function {shown(feature.function)!r}"
    try:
        with _staying():
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's module does what it likes
        raise InputError(
            f"{here} cannot be loaded ({_reason(error)}); "
            "write package.module:name, or file.py:name relative to the description"
        ) from error

    def value(row: Mapping[str, object]) -> str | None:
        try:
            with _staying():
                found = function(dict(row))  # which it may change
                return None if found is None else str(found)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise InputError(f"{here} failed ({_reason(error)}) on the row {shown(row)}; fix the function") from error

    return value


class _ExitCalled(BaseException):
    """The user's function tried to end the process."""


@contextmanager
def _staying() -> Iterator[None]:
    """Keeps `os._exit`, which ends the process without a word, from the user's function."""

    def refuse(status: int) -> None:
        raise _ExitCalled(f"os._exit({status}) was called")

    kept, os._exit = os._exit, refuse  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        os._exit = kept


def _reason(error: BaseException) -> str:
    return shown(" ".join(f"{type(error).__name__}: {error}".split()))
