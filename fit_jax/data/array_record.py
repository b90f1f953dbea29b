"""Tasks as ArrayRecord data sets: writing them, and reading them back example by example."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fit_jax.config import TaskConfig
from fit_jax.data.row_readers import data_folder
from fit_jax.data.splits import Rho, Split
from fit_jax.data.tasks import Task
from fit_jax.errors import InputError
from fit_jax.files import make_folder, write_text
from fit_jax.focus.example import Example, Spurious, TaskText


class RecordedExamples(Sequence[Example]):
    """The examples of a split, each read from its record when it is asked for."""

    def __init__(self, records: Any) -> None:
        """`records` is a TFDS data source of the features that `fit_jax.data.builders` writes."""
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [_example(record) for record in self._records.__getitems__(range(len(self))[index])]
        return _example(self._records[range(len(self))[index]])  # an index out of range raises, as in a list


def build_records(config: TaskConfig, seed: int, out: Path) -> Path:
    """Writes a task's splits as a TFDS data set in ArrayRecord format, with its card.

    Returns:
        The data set's folder. A data set that is already there is left as it is.

    Raises:
        InputError: The task cannot be built, or the folder not written to.
    """
    import tensorflow_datasets as tfds  # takes a second

    from fit_jax.data.builders import BUILDERS, FitConfig, config_name

    if config.source == "array_record":
        raise InputError("--task.source array_record: records are built from `files` or from the `hub`")
    if config.name not in BUILDERS:
        raise InputError(f"--task.name: there is no task {config.name!r}; the tasks are {', '.join(BUILDERS)}")
    make_folder(out)
    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.WARNING)
    name = config_name(config, seed)
    wanted = name if name == "default" else FitConfig(name=name, task=config, seed=seed)
    builder = BUILDERS[config.name](task=config, config=wanted, data_dir=str(out), file_format="array_record")
    builder.download_and_prepare()
    folder = Path(builder.data_dir)
    if not (folder / "README.md").exists():
        write_text(folder / "README.md", builder.info.metadata["card"])
    return folder


def load_task(config: TaskConfig, seed: int) -> Task:
    """The task that `build_records` wrote for the same config and seed.

    Raises:
        InputError: It has not been built.
    """
    import tensorflow_datasets as tfds  # takes a second

    from fit_jax.data.builders import FitBuilder, config_name, dataset_name

    name = config_name(config, seed)
    folder = data_folder(config, dataset_name(config.name)) / name / str(FitBuilder.VERSION)
    if not folder.is_dir():
        raise InputError(
            f"task {config.name}: {folder} is not there, so records of this task config and seed {seed} have not been "
            "built; run python -m fit_jax.data build with the same --task fields and --seed"
        )
    builder = tfds.builder_from_directory(str(folder))
    told = builder.info.metadata
    splits = {
        split: Split(split, RecordedExamples(builder.as_data_source(split)), _rho(rho))
        for split, rho in told["rho"].items()
    }
    return Task(text=TaskText(**told["text"]), splits=splits, notes=tuple(told["notes"]), dropped=told["dropped"])


def _rho(told: dict[str, dict[str, list]]) -> dict[str, dict[str, Rho]]:
    return {feature: {value: Rho(*rho) for value, rho in values.items()} for feature, values in told.items()}


def _example(record: dict[str, Any]) -> Example:
    def pairs(field: str, key: str, value: str) -> Iterable[tuple[str, str]]:
        return zip(_texts(record[field][key]), _texts(record[field][value]))

    spurious = record["spurious"]
    labels = [int(label) for label in spurious["label"]]
    return Example(
        uid=record["uid"].decode(),
        slots=dict(pairs("slots", "name", "text")),
        candidates=tuple(_texts(record["candidates"])),
        label=int(record["label"]),
        spurious={f: Spurious(v, y) for (f, v), y in zip(pairs("spurious", "feature", "value"), labels)},
        slices=dict(pairs("slices", "name", "value")),
    )


def _texts(values: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in values]
