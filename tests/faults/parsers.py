"""Every parser of files that others wrote, by its name; those of data, command lines, configs and results are here."""

import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from fit_jax.config import Config, TaskConfig, load_config
from fit_jax.config_files import dump_config
from fit_jax.data.kept_task import TASK_FILE, keep_task, kept_task
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.jsonl import raw_table
from fit_jax.evaluation.report import read_predictions
from fit_jax.runs.inputs import fingerprints
from fit_jax.runs.resolve import resolve
from fit_jax.runs.run_folder import opened_config
from fit_jax.training.metrics import read_metrics

from ..tickets import TICKETS
from . import hostile
from .cases import SPECIAL, Case, Target
from .model_parsers import MODEL_TARGETS, WORDS


def draw_case(random: Random, name: str) -> Case:
    """A bad input for a parser; once in twelve a pipe, a folder or a loop of links stands in place of a file."""
    files, arguments = TARGETS[name].draw(random)
    if files and random.random() < 1 / 12:
        files = {**files, random.choice(list(files)): random.choice(list(SPECIAL))}
    return Case(name, files, arguments)


DESCRIPTION = {
    **TICKETS,
    "uid": "id",
    "slices": ["plan"],
    "features": [
        {"key": "channel", "column": "channel", "labels": {"mail": "yes", "phone": "no"}},
        {"key": "hurry", "keywords": ["asap", "now"]},
        {"key": "length", "function": "features.py:length"},
    ],
}
FUNCTIONS = b"def length(row):\n    return 'long' if len(row['text']) > 20 else None\n"
BODIES = (
    "raise BaseException('a')",
    "raise SystemExit(0)",
    "import os; os._exit(0)",
    "import sys; sys.exit('b')",
    "return 1 / 0",
    "return row",
    "return chr(0xd800)",
    "return '\\x1b[31m'",
    "return row['none']",
    "return length(row)",
    "row.clear()",
)


def _rows(random: Random, count: int = 240) -> list[dict[str, Any]]:
    return [
        {
            "id": f"t{n}",
            "text": " ".join(random.sample(WORDS, 5)) + f" {n}",
            "urgent": ("no", "yes")[n % 2],
            "channel": ("mail", "phone")[random.randrange(2)],
            "plan": "ab"[n % 3 == 0],
        }
        for n in range(count)
    ]


def _described(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    rows = b"".join(hostile.to_json(row) + b"\n" for row in _rows(random))
    files = {"rows.jsonl": rows, "features.py": FUNCTIONS}
    if random.random() < 0.2:
        files["features.py"] = f"def length(row):\n    {random.choice(BODIES)}\n".encode()
        return {**files, "own.yaml": json.dumps(DESCRIPTION).encode()}, ()
    written = yaml.safe_dump(DESCRIPTION).encode()
    wrong = hostile.to_json(hostile.mutated(random, DESCRIPTION))
    return {**files, "own.yaml": wrong if random.random() < 0.8 else hostile.damaged(random, written)}, ()


def _table(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    import pyarrow
    import pyarrow.parquet

    rows = _rows(random)
    kind = random.choice(("jsonl", "jsonl", "csv", "tsv", "parquet"))
    if kind == "jsonl":
        for _ in range(random.choice((0, 1, 5))):
            rows[random.randrange(len(rows))] = hostile.mutated(random, random.choice(rows[:5]))
        content = b"".join(hostile.to_json(row) + b"\n" for row in rows)
    elif kind == "parquet":
        column = random.choice(list(rows[0]))
        table = pyarrow.Table.from_pylist(rows)
        odd = random.choice(([b"\xff\xfe"] * len(rows), list(range(len(rows))), [None] * len(rows), [[1]] * len(rows)))
        array = pyarrow.array(odd)
        if array.type == pyarrow.binary() and random.random() < 0.7:
            array = array.view(pyarrow.string())
        out = io.BytesIO()
        pyarrow.parquet.write_table(table.set_column(list(rows[0]).index(column), column, array), out)
        content = out.getvalue()
    else:
        mark = {"csv": ",", "tsv": "\t"}[kind]
        lines = [mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]
        content = "\n".join(lines).encode()
    if random.random() < 0.6:
        content = hostile.damaged(random, content)
    description = json.dumps({**DESCRIPTION, "files": [f"rows.{kind}"]}).encode()
    return {f"rows.{kind}": content, "own.yaml": description, "features.py": FUNCTIONS}, (
        random.choice(("error", "skip")),
    )


def _build(malformed: Any = "error") -> None:
    config = TaskConfig(name="jsonl", file="own.yaml", malformed=malformed)
    task = raw_table(config).task
    assert all(split.examples[n] for split in task.splits.values() for n in range(len(split.examples)))
    task = build_task(config, 0)
    assert all(split.examples[0] for split in task.splits.values())


def leaves(cls: Any, prefix: str = "") -> list[str]:
    """Dotted names of the fields of a config."""
    parts = ((f.type, f"{prefix}{f.name}") for f in fields(cls))  # pyright: ignore[reportArgumentType]
    return [name for kind, at in parts for name in (leaves(kind, f"{at}.") if is_dataclass(kind) else [at])]


def _options(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    arguments = []
    for _ in range(random.choice((1, 1, 2))):
        name, wrong = random.choice(leaves(Config)), hostile.value(random)
        shown = wrong if isinstance(wrong, str) and wrong not in hostile.RAW else hostile.to_json(wrong).decode()
        if "\0" in shown or not shown.isprintable():  # no command line can hold it
            shown = repr(shown)
        arguments += [random.choice((f"--{name}", f"--{name[:-1]}", f"--{hostile.text(random)}")), shown]
    return {}, tuple(arguments)


def _yaml_config(cls: Any) -> Any:
    def draw(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
        written = dump_config(cls)
        document = yaml.safe_load(written)
        if random.random() < 0.7:
            content = hostile.to_json(hostile.mutated(random, document))
        else:
            content = hostile.damaged(random, written.encode())
        return {"config.yaml": content}, ()

    return draw


PREDICTION = {
    "uid": "a", "split": "iid", "focus": "none", "feature": "channel", "paraphrases": "train",
    "log_probs": [-0.1, None], "label": 0, "core_label": 0, "prediction": 0,
}  # fmt: skip


def _lines(name: str, document: Any) -> Any:
    def draw(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
        lines = [hostile.to_json(document)] * 3
        lines[random.randrange(3)] = hostile.to_json(hostile.mutated(random, document))
        content = b"".join(line + b"\n" for line in lines)
        return {name: hostile.damaged(random, content) if random.random() < 0.3 else content}, ()

    return draw


@cache
def _stored_task() -> Mapping[str, bytes]:
    with TemporaryDirectory() as folder:
        task = build_task(TaskConfig(train_examples=8, validation_examples=4, test_examples=4), 0)
        keep_task(Path(folder), task)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _kept_task(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    files = dict(_stored_task())
    name = random.choice((TASK_FILE, *sorted(files)))
    lines = files[name].splitlines() if name != TASK_FILE else [files[name]]
    number = random.randrange(len(lines))
    lines[number] = hostile.to_json(hostile.mutated(random, json.loads(lines[number])))
    content = b"".join(line + b"\n" for line in lines)
    return {**files, name: hostile.damaged(random, content) if random.random() < 0.2 else content}, ()


def _read_kept_task() -> None:
    task = kept_task(Path())
    fingerprints(task, resolve(Config()), kept=True)


TARGETS: Mapping[str, Target] = {
    **MODEL_TARGETS,
    "description of data": Target(_build, _described),
    "rows of data": Target(_build, _table),
    "command line": Target(lambda *arguments: load_config(list(arguments)), _options),
    "config file": Target(lambda: load_config(["--config", "config.yaml"]), _yaml_config(Config())),
    "run folder": Target(lambda: opened_config(Path(), ()), _yaml_config(Config())),
    "kept task": Target(_read_kept_task, _kept_task),
    "predictions": Target(lambda: read_predictions(Path("predictions.jsonl")), _lines("predictions.jsonl", PREDICTION)),
    "metrics": Target(
        lambda: read_metrics(Path("metrics.jsonl")), _lines("metrics.jsonl", {"step": 1, "loss": 0.5, "tokens": 10})
    ),
}
