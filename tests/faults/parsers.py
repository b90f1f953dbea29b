"""Every parser of files that others wrote, and of command lines: what it takes when all is well, made bad at random."""

import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args

import numpy as np
import yaml

from fit_jax.config import Config, TaskConfig, load_config
from fit_jax.config_files import dump_config
from fit_jax.data.kept_task import TASK_FILE, keep_task, kept_task
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.jsonl import raw_table
from fit_jax.evaluation.report import read_predictions
from fit_jax.focus.templates import prompt_form
from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer, train_tokenizer
from fit_jax.models import llama2c
from fit_jax.models.adapter_config import resolve_lora
from fit_jax.models.config import DecoderConfig, Family, ModelConfig
from fit_jax.models.families import config_to_hf
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import open_pretrained
from fit_jax.models.tensor_files import TensorFiles, write_tensors
from fit_jax.runs.inputs import fingerprints
from fit_jax.runs.resolve import resolve
from fit_jax.runs.run_folder import opened_config
from fit_jax.training.metrics import read_metrics

from ..tickets import TICKETS
from . import hostile
from .cases import SPECIAL, Case
from .templates import random_template

FAMILIES = get_args(Family)
WORDS = ("please", "help", "now", "later", "asap", "thanks", "urgent", "money", "refund", "call", "mail", "ticket")


class Target(NamedTuple):
    """A parser: how it is called in a folder of its files, and how a bad input for it is drawn."""

    act: Callable[..., object]
    draw: Callable[[Random], tuple[Mapping[str, bytes | str], tuple[str, ...]]]


def draw_case(random: Random, name: str) -> Case:
    """A bad input for a parser; once in twelve a pipe, a folder or a loop of links stands in place of a file."""
    files, arguments = TARGETS[name].draw(random)
    if files and random.random() < 1 / 12:
        files = {**files, random.choice(list(files)): random.choice(list(SPECIAL))}
    return Case(name, files, arguments)


def _json_file(name: str, documents: Callable[[Random], Any], others: Callable[[Random], Mapping[str, bytes]]) -> Any:
    """Draws a JSON file with wrong values, or its bytes damaged; beside it stand others."""

    def draw(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
        document = documents(random)
        if random.random() < 0.8:
            content = hostile.to_json(hostile.mutated(random, document))
        else:
            content = hostile.damaged(random, json.dumps(document, indent=1).encode())
        return {**others(random), name: content}, ()

    return draw


def _nothing(_: Random) -> Mapping[str, bytes]:
    return {}


def _hf(random: Random) -> dict[str, Any]:
    family = random.choice(FAMILIES)
    shape = DecoderConfig(
        vocab_size=300, layers=2, width=32, feed_forward=48, family=family, window=64, sliding_theta=1e4
    )
    hf = config_to_hf(shape, max_positions=128, tokens={"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None})
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    yarn = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1}
    longrope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    linear = {"rope_type": "linear", "factor": 2.0}
    old = random.choice((None, linear, {"rope_type": "llama3", **llama3}, yarn, longrope))
    if random.random() < 0.5:
        return {**hf, "rope_scaling": old}
    new = {"rope_theta": 1e4, "rope_type": "default", **(old or {})}
    layered = {"full_attention": new, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}
    return {**hf, "rope_parameters": layered if family in ("gemma3_text", "olmo3") else new}


def _own_model(random: Random) -> dict[str, Any]:
    return {"model": asdict(DecoderConfig(vocab_size=300, sliding_layers=(0,), window=8)), "hf": _hf(random)}


@cache
def _stored(*names: str) -> Mapping[str, bytes]:
    """Tensors of these names in two files with an index."""
    with TemporaryDirectory() as folder:
        tensors = {name: ((4, 8), np.dtype(np.float32)) for name in names}
        values = ((lambda: iter([np.ones((4, 8), np.float32)])) for _ in names)
        write_tensors(Path(folder), tensors, values, most_bytes=200)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _weights(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    files = dict(_stored("a", "b", "c"))
    name = random.choice(sorted(files))
    if name.endswith(".json") and random.random() < 0.8:
        files[name] = hostile.to_json(hostile.mutated(random, json.loads(files[name])))
    elif random.random() < 0.2:
        del files[name]
    elif random.random() < 0.5:  # the header alone, which is JSON
        content = files[name]
        size = struct.unpack("<Q", content[:8])[0] if name.endswith("s") else 0
        try:
            header = hostile.to_json(hostile.mutated(random, json.loads(content[8 : 8 + size] or "{}")))
        except UnicodeError:
            header = b"{}"
        files[name] = struct.pack("<Q", random.choice((len(header), size, 2**63, 0))) + header + content[8 + size :]
    else:
        files[name] = hostile.damaged(random, files[name])
    return files, ()


def _read_weights() -> None:
    files = TensorFiles(Path())
    for name in files.tensors:
        files.read(name)


ADAPTER = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "target_modules": ["q_proj"],
    "modules_to_save": None,
    "rank_pattern": {},
    "fan_in_fan_out": False,
    "base_model_name_or_path": "base",
}


def _adapter_weights(random: Random) -> Mapping[str, bytes]:
    layer = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    return _stored(f"{layer}A.weight", f"{layer}B.weight")


@cache
def tokenizer_files() -> Mapping[str, bytes]:
    """A small tokenizer's files."""
    with TemporaryDirectory() as folder:
        save_tokenizer(_tokenizer_of_words(), folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# Regular expressions that try ever more ways to match the last of `TEXTS`.
ENDLESS = ("(a+)+$", "(a|aa)+$", "(.*)*b$", "^(([a-z])+.)+[A-Z]+$", "(a?){40}a{40}")
TEXTS = (" ".join(WORDS), "é\u0301 ﬁ 中 \U0001f600\u200d\n\t  x", "<|im_start|><pad>", "a" * 60 + "!")


def _hurt_pattern(random: Random, document: dict[str, Any]) -> None:
    """Puts a costly regular expression where a tokenizer splits or replaces."""
    regex = {"Regex": random.choice(ENDLESS)}
    part = random.choice(("normalizer", "pre_tokenizer", "decoder"))
    kind = {"type": "Replace", "pattern": regex, "content": "b"}
    if part == "pre_tokenizer":
        kind = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": random.random() < 0.5}
    inner = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[part]
    document[part] = {"type": "Sequence", inner: [*filter(None, [document[part]]), kind]}


def _encode(name: str) -> None:
    """Reads a tokenizer and has it encode and decode texts, as data would."""
    tokenizer = load_tokenizer(name)
    for text in TEXTS:
        tokenizer.decode(tokenizer(text)["input_ids"])
        tokenizer.backend_tokenizer.encode_batch_fast([text, text], add_special_tokens=False)


def _tokenizer(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    files = dict(tokenizer_files())
    name = random.choice(sorted(files))
    if random.random() < 0.1:
        name, document = "tokenizer.json", json.loads(files["tokenizer.json"])
        _hurt_pattern(random, document)
        files[name] = json.dumps(document).encode()
    elif random.random() < 0.7:
        files[name] = hostile.to_json(hostile.mutated(random, json.loads(files[name])))
    else:
        files[name] = hostile.damaged(random, files[name])
    return files, ()


def _llama2c_tokenizer(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    content = struct.pack("<i", 8)
    for word in ("<unk>", "\n<s>\n", "\n</s>\n", *WORDS):
        length = len(word) if random.random() < 0.95 else random.choice((-1, -8, 0, 2**31 - 1, -(2**31)))
        content += struct.pack("<fi", 0.5, length) + word.encode()
    return {"tok9.bin": hostile.damaged(random, content) if random.random() < 0.6 else content}, ()


def _llama2c(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    sizes = [8, 12, 2, 2, 1, 20, 16]
    if random.random() < 0.6:
        sizes[random.randrange(7)] = random.choice((0, -1, 1, 3, 2**31 - 1, -(2**31), 65536))
    content = struct.pack("<7i", *sizes) + np.ones(2000, np.float32).tobytes()
    return {"model.bin": hostile.damaged(random, content) if random.random() < 0.5 else content}, ()


def _import_llama2c() -> None:
    Path("out").mkdir()
    llama2c.convert(Path("model.bin"), Path("out"))


@cache
def _tokenizer_of_words() -> Any:
    return train_tokenizer(WORDS, 300)


def _template(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    return {}, (random_template(random),)


def _render(template: str) -> None:
    tokenizer = _tokenizer_of_words()
    tokenizer.chat_template = template
    prompt_form(tokenizer, "Answer:", "auto")


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
    "config.json": Target(lambda: open_pretrained("."), _json_file("config.json", _hf, _nothing)),
    "imported model": Target(lambda: open_pretrained("."), _json_file("fit_jax_model.json", _own_model, _nothing)),
    "weights": Target(_read_weights, _weights),
    "adapter": Target(
        lambda: resolve_lora(LoraConfig(adapter="."), ModelConfig()),
        _json_file("adapter_config.json", lambda _: ADAPTER, _adapter_weights),
    ),
    "tokenizer": Target(lambda: _encode("."), _tokenizer),
    "llama2.c tokenizer": Target(lambda: _encode("tok9.bin"), _llama2c_tokenizer),
    "llama2.c model": Target(_import_llama2c, _llama2c),
    "chat template": Target(_render, _template),
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
