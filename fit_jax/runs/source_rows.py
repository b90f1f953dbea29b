"""Rows in memory as data of one's own, kept with the run that is made from them."""

import json
from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import Any

import yaml

from fit_jax.data.own_data import read_description
from fit_jax.errors import InputError
from fit_jax.files import make_folder, write_text
from fit_jax.foreign import read_text, shown
from fit_jax.runs.run_folder import has_checkpoint


def keep_rows(folder: Path, rows: Iterable[Mapping[str, object]], description: Mapping[str, object]) -> Path:
    """Writes rows and what their columns mean into a folder of a run, as files that a config can name.

    Args:
        folder: Stands in the run folder.
        rows: Mappings, a pandas DataFrame or a `datasets.Dataset`.
        description: The fields of a description file but `files`.

    Returns:
        The description's path.

    Raises:
        InputError: Values that no file can hold, a description that is none, or a run of other rows stands there.
    """
    make_folder(folder)
    in_pandas = getattr(rows, "to_dict", None) if hasattr(rows, "columns") else None
    records = rows if in_pandas is None else in_pandas("records")
    try:
        lines = "".join(json.dumps(_without_gaps(row), default=_plain) + "\n" for row in records)
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"tune: rows must hold text, numbers and lists ({shown(str(error))})") from error
    path = folder / "description.yaml"
    try:
        words = yaml.safe_dump({**description, "files": ["rows.jsonl"]}, sort_keys=False)
    except (TypeError, yaml.YAMLError) as error:
        raise InputError(f"tune: description must hold text, numbers and lists ({shown(str(error))})") from error
    for place, content in ((path, words), (folder / "rows.jsonl", lines)):
        if has_checkpoint(folder.parent) and place.is_file() and read_text(place, "put it back from a copy") != content:
            raise InputError(
                f"{folder.parent}: holds a run of other rows or another description; give the same ones, or choose "
                "another run_dir"
            )
        write_text(place, content)
    read_description(path)
    return path


def _without_gaps(row: Mapping[str, object]) -> dict[str, Any]:
    """A row in which null stands for what pandas calls NaN."""
    return {name: _or_null(value) for name, value in row.items()}


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and isnan(value) else value


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's, and its NaN as null."""
    if hasattr(value, "item"):
        return _or_null(value.item())
    raise TypeError(f"{type(value).__name__} is neither")
