"""Rows in memory as data of one's own, kept with the run that is made from them."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fit_jax.config_files import decode_config, dump_config
from fit_jax.data.own_data import OwnData, check_description, read_description
from fit_jax.errors import InputError
from fit_jax.files import make_folder, write_text
from fit_jax.foreign import named, quoted, read_text, shown
from fit_jax.runs.run_folder import InUse, has_checkpoint

# Where an error lists malformed rows.
_LISTING = "description.malformed.jsonl"
_TAKEN = "give a list of mappings, a pandas DataFrame or a datasets.Dataset"


def keep_rows(
    folder: Path, rows: Iterable[Mapping[str, object]], description: Mapping[str, object] | str | Path
) -> Path:
    """Writes rows and what their columns mean into a folder of a run, as files that a config can name.

    Args:
        folder: Stands in the run folder.
        rows: Mappings, a pandas DataFrame or a `datasets.Dataset`. Dates and times are written in ISO form.
        description: The fields of a description file, or the path of one; the rows are in the place of its `files`.

    Returns:
        The description's path.

    Raises:
        InputError: Values that no file can hold, a description that is none, or a run of other rows stands there.
    """
    words = _description(description)
    lines = "".join(_line(number, row) for number, row in enumerate(_records(rows)))
    make_folder(folder)
    path = folder / "description.yaml"
    for place, content in ((path, words), (folder / "rows.jsonl", lines)):
        if has_checkpoint(folder.parent) and place.is_file() and read_text(place, "put it back from a copy") != content:
            raise InputError(
                f"{named(folder.parent)}: holds a run of other rows or another description; give the same ones, or "
                "choose another run_dir"
            )
        write_text(place, content)
    return path


@contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Removes what was put into a run folder meanwhile where input is wrong and no checkpoint is there.

    The list of malformed rows stays, which the error names.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    before = set() if missing else set(folder.iterdir())
    try:
        yield
    except InUse:  # what is there is another process's
        raise
    except InputError:
        if not has_checkpoint(folder):
            with suppress(OSError):  # another process of the job removes it, too, or something is left in a folder
                for path in {*folder.iterdir()} - before:
                    _remove(path)
                for place in missing:
                    place.rmdir()
        raise


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
    elif (path / _LISTING).exists():
        for inner in path.iterdir():
            if inner.name != _LISTING:
                _remove(inner)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _description(given: Any) -> str:
    """A description as the file that stands beside the rows."""
    if isinstance(given, str | Path):
        path = Path(given)
        own = read_description(path)
        features = tuple(
            replace(f, function=_from_here(f.function, path.parent)) if f.function and ".py:" in f.function else f
            for f in own.features
        )
        tests = tuple(_from_here(name, path.parent) for name in own.test_files)
        given = yaml.safe_load(dump_config(replace(own, features=features, test_files=tests)))
    elif not isinstance(given, Mapping):
        raise InputError(f"tune: description is a {type(given).__name__}; give a mapping, or the path of a description")
    if given.get("hub"):
        raise InputError("tune: the description names a `hub` data set beside the rows; leave one of them out")
    try:
        words = yaml.safe_dump({**given, "files": ["rows.jsonl"]}, sort_keys=False)
    except (TypeError, yaml.YAMLError) as error:
        raise InputError(f"tune: description must hold text, numbers and lists ({shown(str(error))})") from error
    check_description(decode_config(OwnData, yaml.safe_load(words), where="description"), "description")
    return words


def _from_here(name: str, folder: Path) -> str:
    """A name relative to a description, as one that is right in another folder too."""
    return os.path.abspath(folder / name)


def _records(rows: Any) -> Iterable[Any]:
    """What `tune` takes as rows, row by row."""
    kind = type(rows).__name__
    remedy = _TAKEN
    if isinstance(rows, Mapping):
        remedy = (
            'choose one of its parts, as in rows["train"]'
            if kind.endswith("DatasetDict")
            else "make rows of its columns, as pandas.DataFrame(rows) does"
        )
    elif isinstance(rows, str | bytes | os.PathLike):
        remedy = 'name a file in `files` of a description, and set {"task.name": "jsonl", "task.file": DESCRIPTION}'
    elif hasattr(rows, "itertuples"):
        names = list(rows.columns)
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"tune: two columns of the rows are called {quoted(twice[0])}; rename one")
        return rows.to_dict("records")
    elif hasattr(rows, "__iter__") or hasattr(rows, "__getitem__"):
        return rows
    raise InputError(f"tune: rows is a {kind}; {remedy}")


def _line(number: int, row: object) -> str:
    """A row as JSON; null stands for what pandas calls NaN."""
    if not isinstance(row, Mapping):
        raise InputError(f"tune: row {number} of the rows is a {type(row).__name__}, not a mapping; {_TAKEN}")
    values = {name: _or_null(value) for name, value in row.items()}
    try:
        return json.dumps(values, default=_plain) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        wrong = next((name for name, value in values.items() if not _is_written({name: value})), None)
        raise InputError(
            f"tune: row {number} of the rows, column {quoted(wrong)}: is no text, number, date or list "
            f"({shown(str(error))}); convert the column, or leave it out"
        ) from error


def _is_written(value: object) -> bool:
    try:
        json.dumps(value, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _or_null(value: Any) -> Any:
    return None if isinstance(value, float) and isnan(value) else value


def _plain(value: Any) -> Any:
    """What JSON has no form for: numbers and arrays of NumPy's as Python's, dates in ISO form, their gaps as null."""
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return _or_null(value.tolist())
    raise TypeError(f"a value of type {type(value).__name__}")
