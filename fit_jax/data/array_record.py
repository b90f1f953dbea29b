"""Tasks read back from ArrayRecord data sets, example by example; `fit_jax.data.builders` writes them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from fit_jax.config import TaskConfig
from fit_jax.data.kept_task import read_rho, read_words
from fit_jax.data.lazy_examples import LazyExamples
from fit_jax.data.row_readers import data_folder
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious
from fit_jax.foreign import exists, named

# Version of what the builders write.
VERSION = "1.2.0"
# Where the data lie and how they are read does not change what is built, nor what only a run has; the seed is in the
# name.
_NOT_IN_DIGEST = ("data_dir", "source", "malformed", "keep_examples", "seed", "parts")
# Fields that came later; data that were built before have none of them.
_LATER = ("features", "rho_train_of")


def dataset_name(task: str) -> str:
    """Name of a task's TFDS data set."""
    return f"fit_{task}"


def config_name(config: TaskConfig, seed: int) -> str:
    """Name of the TFDS config that holds a task's splits: `default`, or a name of its own for each config and seed."""
    given = dataclasses.asdict(config).items()
    fields = {k: v for k, v in given if k not in _NOT_IN_DIGEST and (v or k not in _LATER)}
    plain = {k: v for k, v in dataclasses.asdict(TaskConfig(name=config.name)).items() if k in fields}
    seed = config.drawn_by(seed)
    if fields == plain and seed == 0:
        return "default"
    digest = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=4).hexdigest()
    return f"seed{seed}_{digest}"


def load_task(config: TaskConfig, seed: int) -> Task:
    """The task that `build_records` wrote for the same config and seed.

    Raises:
        InputError: It has not been built.
    """
    import tensorflow_datasets as tfds  # takes a second

    folder = data_folder(config, dataset_name(config.name)) / config_name(config, seed) / VERSION
    if not (exists(folder) and folder.is_dir()):
        raise InputError(
            f"task {config.name}: {named(folder)} is not there, so records of this task config and seed {seed} have "
            "not been built; run python -m fit_jax.data build with the same --task fields and --seed"
        )
    builder = tfds.builder_from_directory(str(folder))
    recorded = builder.info.metadata
    assert recorded is not None, "the builders of this package write metadata"
    splits = {}
    for name, rho in recorded["rho"].items():
        records = builder.as_data_source(name)  # pyright: ignore[reportCallIssue]  # its decorator has no types
        found = recorded.get("correlation", {}).get(name, {})
        splits[name] = Split(name, _examples(records), read_rho(rho), correlation=found)
    text, notes = read_words(recorded["text"]), tuple(recorded["notes"])
    return Task(text=text, splits=splits, notes=notes, dropped=recorded["dropped"])


def _examples(records: Any) -> LazyExamples:
    """The examples of a TFDS data source of the features that `fit_jax.data.builders` writes."""
    return LazyExamples(len(records), lambda numbers: [_example(record) for record in records.__getitems__(numbers)])


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
        own_answers=bool(record["own_answers"]),
        cluster=record["cluster"].decode(),
    )


def _texts(values: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in values]
