"""A task kept in a folder as JSON, so that a model can be asked and evaluated where its data are not.

`task.json` holds the words of the prompts and what is known of each split, `examples_SPLIT.jsonl` the examples of every
split but the training one, whose number alone is kept. Of a mixture it holds the weights of the tasks, each of which is
kept in a folder of its own, `tasks/NAME`.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from fit_jax.data.lazy_examples import LazyExamples
from fit_jax.data.mixture import NAME, mix
from fit_jax.data.splits import Rho, Split
from fit_jax.data.task import Task
from fit_jax.errors import InputError, cannot_write
from fit_jax.files import check_outputs, make_folder, write_text
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.foreign import named, read_object, read_records, shown

TASK_FILE = "task.json"
_REMEDY = "put it back from a copy, or have it made again by train with --changed_inputs accept"
_DAMAGED = "is damaged or of another version"


# Most bytes of examples that are kept: a copy for each run is to be small beside its checkpoints.
MOST_BYTES = 256 * 2**20


def keep_task(folder: Path, task: Task, most: int = MOST_BYTES) -> bool:
    """Writes a task into a folder; what an earlier one left there is replaced.

    Args:
        folder: Its place.
        task: The task.
        most: Bytes of examples above which nothing is written.

    Returns:
        Whether it was written.

    Raises:
        InputError: The folder cannot be written to.
    """
    places = {_part(folder, name): part for name, part in task.parts.items()} or {folder: task}
    rows: dict[Path, list[str]] = {}
    for place, part in places.items():
        for name, split in part.splits.items():
            if name != "train":
                lines = rows[_rows(place, name)] = []
                for example in split.examples:
                    line = json.dumps(_without(example, ("part", "earlier")), ensure_ascii=False) + "\n"
                    most -= len(line.encode())
                    if most < 0:
                        return False
                    lines.append(line)
    for place in (folder, *places):
        make_folder(place)
        check_outputs(place, (TASK_FILE,), ())
        try:
            (place / TASK_FILE).unlink(missing_ok=True)  # until the new one is whole there is none
        except OSError as error:
            raise cannot_write(named(place / TASK_FILE), error) from error
    for path, lines in rows.items():
        write_text(path, "".join(lines))
    for place, part in places.items():
        _write_words(place, part)
    if task.parts:
        write_text(folder / TASK_FILE, json.dumps({"weights": dict(task.weights)}, indent=1) + "\n")
    return True


def _write_words(folder: Path, task: Task) -> None:
    words = {
        "text": _without(task.text, ("parts",)),
        "splits": {
            name: {
                "examples": len(split.examples),
                "rho": plain_rho(split.rho),
                **({"correlation": dict(split.correlation)} if split.correlation else {}),
            }
            for name, split in task.splits.items()
        },
        "notes": task.notes,
        "dropped": dict(task.dropped),
    }
    # Last: a folder that has it is whole.
    write_text(folder / TASK_FILE, json.dumps(words, ensure_ascii=False, indent=1) + "\n")


def _without(record: Example | TaskText, names: Collection[str]) -> dict[str, Any]:
    """Its fields but these, which the place of the file says or no source has."""
    return {field: value for field, value in dataclasses.asdict(record).items() if field not in names}


def has_task(folder: Path) -> bool:
    """Whether a task is kept in the folder."""
    return (folder / TASK_FILE).is_file()


def kept_task(folder: Path) -> Task:
    """The task that `keep_task` wrote; its training examples can be counted and not read.

    Raises:
        InputError: The folder holds none, or a damaged one.
    """
    path = folder / TASK_FILE
    words = read_object(path, _REMEDY).values
    try:
        if "weights" in words:
            weights = {name: float(weight) for name, weight in words["weights"].items()}
            if not all(NAME.fullmatch(name) and 0 <= weight < inf for name, weight in weights.items()):
                raise ValueError("the names or weights of its tasks are none")
            return mix({name: kept_task(_part(folder, name)) for name in weights}, weights)
        counts = {name: len(range(kept["examples"])) for name, kept in words["splits"].items()}  # whole and 0 or more
        splits = {
            name: Split(
                name, _examples(folder, name, counts[name]), read_rho(kept["rho"]), correlation=_correlation(kept)
            )
            for name, kept in words["splits"].items()
        }
        dropped = {reason: len(range(count)) for reason, count in words["dropped"].items()}
        if not _are_texts(words["notes"]):
            raise TypeError(f"notes {words['notes']!r:.40} are no texts")
        return Task(text=read_words(words["text"]), splits=splits, notes=tuple(words["notes"]), dropped=dropped)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{named(path)}: {_DAMAGED} ({shown(str(error))}); {_REMEDY}") from error


def read_words(recorded: Mapping[str, Any]) -> TaskText:
    """The `TaskText` of one task from the plain values that `dataclasses.asdict` and JSON make of it.

    Raises:
        KeyError, TypeError, AttributeError: It lacks a field, or one holds another kind of value.
    """
    biased, others = recorded.get("biased", []), recorded["other_names"]
    texts = [recorded[name] for name in ("name", "instruction", "input_template", "cue", "core")]
    lists = [[*texts, *recorded["spurious"].values()], [*biased], *others.values()]
    if not all(map(_are_texts, lists)) or recorded.get("parts"):
        raise TypeError("the words of the task hold another kind of value")
    others = {feature: tuple(names) for feature, names in others.items()}
    return TaskText(**{**recorded, "other_names": others, "biased": tuple(biased)})


def plain_rho(rho: Mapping[str, Mapping[str, Rho]]) -> dict[str, dict[str, tuple[float | None, float, int]]]:
    """The values of a split's rho as JSON takes them."""
    return {f: {v: (r.asked, r.realised, r.count) for v, r in values.items()} for f, values in rho.items()}


def read_rho(recorded: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, dict[str, Rho]]:
    """A split's rho from what `plain_rho` gave."""
    return {feature: {value: Rho(*rho) for value, rho in values.items()} for feature, values in recorded.items()}


def _correlation(kept: Mapping[str, Any]) -> dict[str, float]:
    return {pair: float(value) for pair, value in kept.get("correlation", {}).items()}


def _examples(folder: Path, split: str, count: int) -> Sequence[Example]:
    path = _rows(folder, split)
    if split == "train":
        return LazyExamples(count, _not_kept(folder))
    records = read_records(path, _REMEDY)
    try:
        examples = [_example(record) for record in records]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{named(path)}: {_DAMAGED} ({shown(str(error))}); {_REMEDY}") from error
    if len(examples) != count:
        raise InputError(f"{named(path)}: holds {len(examples)} of {count} examples; {_REMEDY}")
    return examples


def _example(record: dict[str, Any]) -> Example:
    """The example of a record.

    Raises:
        KeyError, TypeError: It lacks a field, or one holds another kind of value.
    """
    candidates, label = record["candidates"], record["label"]
    ties = [tie for _, tie in record["spurious"].values()]
    fits = (
        _are_texts([record["uid"], record["cluster"], *(value for value, _ in record["spurious"].values())])
        and _are_texts(candidates)
        and all(isinstance(record[name], dict) and _are_texts([*record[name].values()]) for name in ("slots", "slices"))
        and all(type(n) is int and n < len(candidates) for n in (label, *ties))
        and label >= 0
        and isinstance(record["own_answers"], bool)
    )
    if not fits:
        raise TypeError(f"example {record['uid']!r:.40} holds another kind of value")
    spurious = {feature: Spurious(*value) for feature, value in record["spurious"].items()}
    return Example(**{**record, "candidates": tuple(record["candidates"]), "spurious": spurious})


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _not_kept(folder: Path) -> Callable[[Sequence[int]], NoReturn]:
    def refuse(_: Sequence[int]) -> NoReturn:
        raise InputError(
            f"{named(folder)}: keeps the examples of validation and tests, not those of training; choose among its "
            "other splits"
        )

    return refuse


def _part(folder: Path, name: str) -> Path:
    return folder / "tasks" / name


def _rows(folder: Path, split: str) -> Path:
    return folder / f"examples_{split}.jsonl"
