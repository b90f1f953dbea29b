"""Parsers of models, adapters, tokenizers and templates: what each takes when all is well, made bad at random."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np

from fit_jax.focus.templates import prompt_form
from fit_jax.focus.tokenizers import load_tokenizer, save_tokenizer, train_tokenizer
from fit_jax.models import llama2c
from fit_jax.models.adapter_config import resolve_lora
from fit_jax.models.config import DecoderConfig, Family, ModelConfig
from fit_jax.models.families import config_to_hf
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import open_pretrained
from fit_jax.models.tensor_files import TensorFiles, write_tensors
from fit_jax.models.weights import tensor_files

from . import hostile
from .cases import Target
from .templates import random_template

FAMILIES = get_args(Family)
WORDS = ("please", "help", "now", "later", "asap", "thanks", "urgent", "money", "refund", "call", "mail", "ticket")


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


def _with_header(content: bytes, change: Callable[[Any], Any], size: int | None = None) -> bytes:
    """A safetensors file whose header is changed; `size` is what it says of the header's length (None: the truth)."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    try:
        header = hostile.to_json(change(json.loads(content[8:end])))
    except UnicodeError:
        header = b"{}"
    return struct.pack("<Q", len(header) if size is None else size) + header + content[end:]


def _weights(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    files = dict(_stored("a", "b", "c"))
    name = random.choice(sorted(files))
    if name.endswith(".json") and random.random() < 0.8:
        files[name] = hostile.to_json(hostile.mutated(random, json.loads(files[name])))
    elif random.random() < 0.2:
        del files[name]
    elif random.random() < 0.5:  # the header alone, which is JSON
        if name.endswith("s"):
            size = random.choice((None, None, len(files[name]), 2**63, 0))
            files[name] = _with_header(files[name], lambda header: hostile.mutated(random, header), size)
    else:
        files[name] = hostile.damaged(random, files[name])
    return files, ()


def _read_weights() -> None:
    files = TensorFiles(Path())
    for name in files.tensors:
        files.read(name)


# How the weights of `tests/models/quantised` are stored.
STORED = Path(__file__).parents[1] / "models" / "quantised"
METHODS = {"gptq": {"bits": 4, "group_size": 32}, "awq": {"bits": 4, "group_size": 32}, "bitsandbytes": {}}


def _quantised(random: Random) -> tuple[Mapping[str, bytes], tuple[str, ...]]:
    """A quantised weight whose header, description or bytes are damaged, or whose config says otherwise."""
    file = random.choice(sorted(STORED.iterdir()))
    method = next(method for method in METHODS if file.name.startswith(method))
    content, said = file.read_bytes(), {"quant_method": method, **METHODS[method]}
    kind = random.randrange(4)
    if kind == 0:
        said = hostile.mutated(random, said)
    elif kind == 1:
        content = _with_header(content, lambda header: hostile.mutated(random, header))
    elif kind == 2:
        begin = content.find(b'{"quant_type"')
        content = content[:begin] + hostile.damaged(random, content[begin:]) if begin > 0 else content
    else:
        content = hostile.damaged(random, content)
    hf = {**_hf(random), "quantization_config": said}
    return {"config.json": hostile.to_json(hf), "model.safetensors": content}, ()


def _read_quantised() -> None:
    files = tensor_files(open_pretrained("."))
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


MODEL_TARGETS: Mapping[str, Target] = {
    "config.json": Target(lambda: open_pretrained("."), _json_file("config.json", _hf, _nothing)),
    "imported model": Target(lambda: open_pretrained("."), _json_file("fit_jax_model.json", _own_model, _nothing)),
    "weights": Target(_read_weights, _weights),
    "quantised weights": Target(_read_quantised, _quantised),
    "adapter": Target(
        lambda: resolve_lora(LoraConfig(adapter="."), ModelConfig()),
        _json_file("adapter_config.json", lambda _: ADAPTER, _adapter_weights),
    ),
    "tokenizer": Target(lambda: _encode("."), _tokenizer),
    "llama2.c tokenizer": Target(lambda: _encode("tok9.bin"), _llama2c_tokenizer),
    "llama2.c model": Target(_import_llama2c, _llama2c),
    "chat template": Target(_render, _template),
}
