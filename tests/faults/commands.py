"""Whole commands in this process, on folders and with options made bad at random."""

import contextlib
import io
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np

from fit_jax import convert, evaluate, plan, push, steer, train
from fit_jax.config import Config, EvaluationConfig, TaskConfig, TokenizerConfig, TrainConfig
from fit_jax.config_files import dump_config
from fit_jax.data import __main__ as data
from fit_jax.errors import InputError
from fit_jax.experiment import __main__ as experiment
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.models.config import DecoderConfig, ModelConfig
from fit_jax.models.families import config_to_hf, sources
from fit_jax.models.tensor_files import write_tensors
from fit_jax.models.weights import abstract_parameters
from fit_jax.parallel.sharding import named_leaves
from fit_jax.playground import __main__ as playground

from . import hostile
from .cases import SPECIAL, Case
from .parsers import TARGETS, leaves

SHAPE = DecoderConfig(vocab_size=300, layers=2, width=8, feed_forward=12, heads=2, kv_heads=1)
RUN = Config(
    task=TaskConfig(train_examples=16, validation_examples=4, test_examples=4),
    tokenizer=TokenizerConfig(vocab_size=300),
    model=ModelConfig(layers=1, width=8, feed_forward=12, heads=2, kv_heads=1),
    train=TrainConfig(steps=1, batch_size=8, sequence_length=256),
    evaluation=EvaluationConfig(validation_examples=4),
)


def _quietly(main: Callable[[list[str]], int | None]) -> Callable[..., None]:
    """The command; what it prints is looked at for what a terminal would obey."""

    def act(*arguments: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            main(list(arguments))
        obeyed = set(out.getvalue()) & {"\x1b", "\x07", "\x9b", "\x00", "\x08"}
        assert not obeyed, f"prints {obeyed}"

    return act


@cache
def _model() -> Mapping[str, bytes]:
    """A tiny model's folder in Hugging Face's form, with its parameters at random."""
    random, tensors = np.random.default_rng(0), {}
    for path, leaf in named_leaves(abstract_parameters(SHAPE)[1]).items():
        for source in sources(path, SHAPE):
            shape = leaf.shape[1:] if path.startswith("blocks.") else leaf.shape
            tensors[source.name] = random.normal(size=shape[::-1] if source.transposed else shape).astype(np.float32)
    hf = config_to_hf(SHAPE, max_positions=64, tokens={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None})
    with TemporaryDirectory() as folder:
        layout = {name: (value.shape, value.dtype) for name, value in tensors.items()}
        values = ((lambda v=value: iter([v])) for value in tensors.values())
        write_tensors(Path(folder), layout, values, most_bytes=10_000)
        stored = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return {**stored, "config.json": json.dumps(hf).encode(), "generation_config.json": b'{"eos_token_id": 2}'}


def _bad_model(random: Random) -> dict[str, bytes | str]:
    files: dict[str, bytes | str] = dict(_model())
    name = random.choice(sorted(files))
    content = files[name]
    assert isinstance(content, bytes)
    kind = random.randrange(6)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[name] = random.choice(list(SPECIAL))
    elif name.endswith(".json") and kind > 2:
        files[name] = hostile.to_json(hostile.mutated(random, json.loads(content)))
    elif name.endswith(".safetensors") and kind > 3:
        files[name] = content[:-8] + struct.pack("<2f", *random.choices((float("nan"), float("inf"), 1e38), k=2))
    else:
        files[name] = hostile.damaged(random, content)
    return {f"model/{name}": content for name, content in files.items()}


def _converted(action: str, *names: str) -> Callable[[Random], tuple[Mapping[str, bytes | str], tuple[str, ...]]]:
    def draw(random: Random) -> tuple[Mapping[str, bytes | str], tuple[str, ...]]:
        if random.random() < 0.7:
            return _bad_model(random), (action, *names)
        source, target = (_name(random) if random.random() < 0.6 else name for name in ("model", "out"))
        dtype = ("--dtype", random.choice(("float16", "float8", "float32", ""))) if random.random() < 0.5 else ()
        files = {f"model/{name}": content for name, content in _model().items()}
        return files, (action, "--from", source, "--to", target, *dtype)

    return draw


def _name(random: Random) -> str:
    """A text that a command line can hold, and that names nothing outside the folder."""
    text = hostile.text(random).replace("/", ":").replace("~", "-")
    return "".join(letter for letter in text if letter.isprintable())  # what one types oneself is no attack


def _data(action: str) -> Callable[[Random], tuple[Mapping[str, bytes | str], tuple[str, ...]]]:
    def draw(random: Random) -> tuple[Mapping[str, bytes | str], tuple[str, ...]]:
        files, _ = TARGETS[random.choice(("description of data", "rows of data"))].draw(random)
        more = ("--json",) if random.random() < 0.3 else ()
        small = ("--task.train_examples", "20", "--task.validation_examples", "4", "--task.test_examples", "4")
        return files, (
            action,
            "--task",
            "jsonl",
            "--task.file",
            "own.yaml",
            "--tokenizer.vocab_size",
            "300",
            *small,
            *more,
        )

    return draw


def _described(random: Random) -> tuple[Mapping[str, bytes | str], tuple[str, ...]]:
    files, _ = TARGETS["rows of data"].draw(random)
    table = next((name for name in files if name.startswith("rows.")), "rows.csv")
    label = ("--label", random.choice((_name(random), "label", "text", ""))) if random.random() < 0.5 else ()
    return files, ("describe", table, "--out", random.choice(("new.yaml", "own.yaml", _name(random))), *label)


def _asked(*options: str) -> Callable[[Random], tuple[Mapping[str, bytes | str], tuple[str, ...]]]:
    def draw(random: Random) -> tuple[Mapping[str, bytes | str], tuple[str, ...]]:
        arguments = ["run"]
        for _ in range(random.choice((1, 2, 3))):
            arguments += [random.choice(options), _name(random)]
        files: dict[str, bytes | str] = {"run/config.yaml": dump_config(RUN).encode()}
        for name in ("checkpoints", "metrics.jsonl", "tokenizer", "report", ".lock"):
            if random.random() < 0.2:
                files[f"run/{name}"] = random.choice((*SPECIAL, b"", b"{"))
        return files, tuple(arguments)

    return draw


def _planned(random: Random) -> tuple[Mapping[str, bytes | str], tuple[str, ...]]:
    machine = random.choice(("v5e:2x2", "v5e", "v5e:0x0", "v5e:999999x999999", "h100:-1", "l4:1e9", ":", _name(random)))
    options = (
        "--topology",
        machine,
        random.choice(("--slices", "--price", "--write", "--train.batch_size")),
        _name(random),
    )
    return {}, options


def _configured(
    cls: type, small: Mapping[str, str]
) -> Callable[[Random], tuple[Mapping[str, bytes | str], tuple[str, ...]]]:
    """Draws values of options, each field as often, over those of a tiny run; no number is merely large."""
    names = leaves(cls)

    def draw(random: Random) -> tuple[Mapping[str, bytes | str], tuple[str, ...]]:
        given = dict(small)
        for _ in range(random.choice((1, 1, 2))):
            kind = random.randrange(4)
            value = (
                _name(random) if kind < 2 else random.choice(("-1", "0", "0.5", "nan", "-inf", "1e999", "null", "[]"))
            )
            if kind == 3:
                value = hostile.to_json([hostile.text(random), -1]).decode()
            given[random.choice(names)] = value
        blocked = random.choice(("config.yaml", ".lock", "checkpoints", "metrics.jsonl", "tokenizer", "report", "task"))
        files: dict[str, bytes | str] = {}
        if random.random() < 0.3:
            files[f"run/{blocked}"] = random.choice((*SPECIAL, b"", b"{", b"a: [1"))
        arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
        return files, (*arguments, "--run_dir", "run")

    return draw


def _untrained(main: Callable[[list[str]], int | None]) -> Callable[[list[str]], int | None]:
    """The command up to the program of its first step, and with Gradio as far as it is asked for."""

    def untrained(arguments: list[str]) -> int | None:
        ended = InputError("nothing is wrong; train")
        with (
            mock.patch("fit_jax.runs.trainer.compile_train_step", side_effect=ended),
            mock.patch("fit_jax.playground.__main__.is_installed", return_value=True),
        ):
            return main(arguments)

    return untrained


SMALL = {
    "task.train_examples": "16", "task.validation_examples": "4", "task.test_examples": "4",
    "tokenizer.vocab_size": "300", "model.layers": "1", "model.width": "8", "model.feed_forward": "12",
    "model.heads": "2", "model.kv_heads": "1", "train.steps": "2", "train.batch_size": "8",
    "train.sequence_length": "256", "evaluation.validation_examples": "4",
}  # fmt: skip
_TRAINED = _configured(Config, SMALL)
_GRID = _configured(ExperimentConfig, {"methods": "[fit]", **{f"run.{name}": value for name, value in SMALL.items()}})
_DRAWN = {
    "train": (_untrained(train.main), _TRAINED),
    "experiment": (_untrained(experiment.main), _GRID),
    "playground": (
        _untrained(playground.main),
        _asked("--checkpoint", "--host", "--port", "--export", "--trust_code="),
    ),
    "convert import": (convert.main, _converted("import", "--from", "model", "--to", "out")),
    "convert export": (convert.main, _converted("export-merged", "--from", "model", "--to", "out")),
    "data inspect": (data.main, _data("inspect")),
    "data audit": (data.main, _data("audit")),
    "data describe": (data.main, _described),
    "push": (push.main, _asked("--to", "--to", "--merged=")),
    "steer": (steer.main, _asked("--text", "--slot", "--focus", "--ignore", "--candidate", "--checkpoint")),
    "evaluate": (evaluate.main, _asked("--checkpoint", "--perplexity", "--evaluation.splits", "--evaluation.examples")),
    "plan": (plan.main, _planned),
}
COMMANDS: Mapping[str, Callable[..., object]] = {name: _quietly(main) for name, (main, _) in _DRAWN.items()}


# A folder within another, as job schedulers and caches make them: a path that no line can hold whole.
_DEEP = "/".join(("deep" * 20, "folder" * 20))


def draw_command(random: Random, name: str) -> Case:
    """A bad call of a command; in one of four the files lie where paths are long."""
    files, arguments = _DRAWN[name][1](random)
    if random.random() < 0.25:
        files = {f"{_DEEP}/{file}": content for file, content in files.items()}
        within = {file.split("/")[2] for file in files} | {"run", "out", "new.yaml"}
        arguments = tuple(f"{_DEEP}/{text}" if text in within else text for text in arguments)
    return Case(name, files, arguments)
