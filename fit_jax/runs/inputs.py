"""What a run was made from, beside its config: fingerprints of its data, tokenizer and base model, in `inputs.json`.

The config names folders and hub ids; what stands there may change while the name does not. A run that went on with
other labels, another tokenizer or another base would say nothing of it, and its results would be of no one run.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from platform import python_version
from typing import Any, Literal

import fit_jax
from fit_jax.config import TaskConfig
from fit_jax.data.own_data import read_description
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.files import write_text
from fit_jax.foreign import exists, read_object
from fit_jax.hub import local_folder
from fit_jax.runs.resolve import ResolvedConfig

FILE, VERSIONS = "inputs.json", "versions.json"

# Whether a run may go on with other inputs than those it was made from.
Changed = Literal["refuse", "accept"]

# Files up to this size are read whole; of larger ones, blocks spread over the file are: other weights differ in all.
_WHOLE = 1 << 28
_BLOCK, _BLOCKS = 1 << 16, 256
# Most examples of a split that are read; files of one's own are read whole besides.
_EXAMPLES = 1 << 14
# The packages on which results depend most, told where they have changed.
_MAIN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "transformers", "tokenizers")


@dataclass(frozen=True)
class Inputs:
    """What a run was made from.

    Attributes:
        prints: Fingerprints by what they are of, in words for a message.
        revisions: The commit of each hub id that was used.
    """

    prints: dict[str, str]
    revisions: dict[str, str] = field(default_factory=dict)


def read_inputs(folder: Path) -> Inputs | None:
    """What a run folder says it was made from; None for a run that has not begun, or of a version that kept nothing.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / FILE
    if not exists(path):
        return None
    kept = read_object(path, "put it back from a copy")
    parts = [kept.section("fingerprints"), kept.section("hub_revisions")]
    texts = [dict(part.values) for part in parts if part is not None]
    if len(texts) < len(parts) or not all(isinstance(text, str) for part in texts for text in part.values()):
        raise InputError(f"{path}: is damaged: it lacks texts or has others; put it back from a copy")
    return Inputs(*texts)


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Keeps in the run folder what it is made from."""
    kept = {"fingerprints": inputs.prints, "hub_revisions": inputs.revisions}
    write_text(folder / FILE, json.dumps(kept, indent=2, sort_keys=True) + "\n")


def check_inputs(folder: Path, kept: Inputs, found: dict[str, str], changed: Changed) -> list[str]:
    """Compares fingerprints with those that a run keeps.

    Returns:
        What has changed, where that is accepted.

    Raises:
        InputError: Something has changed and is not to be accepted.
    """
    names = [name for name, value in found.items() if kept.prints.get(name, value) != value]
    if names and changed == "refuse":
        raise InputError(
            f"{folder}: not what this run was made from: {', '.join(names)}; put it back as it was, choose another "
            "run_dir, or go on all the same with --changed_inputs accept"
        )
    return names


def fingerprints(task: Task, resolved: ResolvedConfig, kept: bool = False) -> dict[str, str]:
    """Fingerprints of the data and of what is read of the base model and the adapter that training begins with.

    Args:
        task: The data.
        resolved: Names the base model and the files of data of one's own.
        kept: Whether the task is the run folder's own copy: then neither its training examples nor its files are read.
    """
    found = {"the words of the prompts": _digest([repr(task.text)])}
    for name, split in task.splits.items():
        if kept and name == "train":
            continue
        examples = split.examples[:: -(-len(split.examples) // _EXAMPLES) or 1]
        fields = ((e.uid, dict(e.slots), e.candidates, e.label, dict(e.spurious), dict(e.slices)) for e in examples)
        lines = (json.dumps(values, sort_keys=True) for values in fields)
        found[f"the examples of split {name}"] = _digest(chain([str(len(split.examples))], lines))
    if not kept:
        found |= _own_files(resolved.asked.task)
    if resolved.model.pretrained is not None:
        folder = local_folder(resolved.model.pretrained, ("*.json",), "model")
        found["the config of model.pretrained"] = _print_of(folder, ("config.json", "fit_jax_model.json"))
        if resolved.lora.rank:  # else every weight comes from the checkpoint
            found["the weights of model.pretrained"] = _print_of(folder, ("*.safetensors", "*.bin"))
    return found


def tokenizer_print(folder: Path) -> dict[str, str]:
    """The fingerprint of the tokenizer that a run keeps."""
    return {f"the folder {folder.name}": _print_of(folder, ("*",))}


def record_versions(folder: Path) -> list[str]:
    """Lists in `versions.json` what software a start of the run uses.

    Returns:
        A line on what has changed since the last start, if anything that matters has.
    """
    sources = sorted(Path(fit_jax.__file__).parent.rglob("*.py"))
    # By the names of their folders alone: reading what is written in them takes a second.
    stems = (path.stem for place in sys.path for path in Path(place).glob("*.dist-info"))
    packages = {name.replace("_", "-"): version for name, _, version in (stem.partition("-") for stem in stems)}
    now = {
        "python": python_version(),
        "fit_jax": packages.get("fit-jax", "unknown"),
        "fit_jax_source": _digest(source.read_text(encoding="utf-8") for source in sources),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }
    path = folder / VERSIONS
    before: Mapping[str, Any] = {}
    try:
        before = read_object(path).values
        rows = [
            f"{name} {was} -> {new}"
            for name, was, new in (
                *((n, before[n], now[n]) for n in ("python", "fit_jax", "fit_jax_source")),
                *((n, before["packages"].get(n), packages.get(n)) for n in _MAIN),
            )
            if was != new
        ]
    except (InputError, KeyError, AttributeError):
        rows = []  # the first start, or a listing that nobody can read
    if now != before:
        write_text(path, json.dumps(now, indent=2) + "\n")
    return [f"since the last start: {', '.join(rows)}"] if rows else []


def _own_files(task: TaskConfig) -> dict[str, str]:
    """Of data of one's own: of the files that the description names."""
    if task.name != "jsonl" or task.file is None:
        return {}
    own, folder = read_description(Path(task.file)), Path(task.file).parent
    parts = {"files": own.files, "test_files": own.test_files}
    return {
        f"the {name} of {task.file}": _digest(_file_print(folder / file) for file in files)
        for name, files in parts.items()
        if files
    }


def _print_of(folder: Path, patterns: Iterable[str]) -> str:
    """The fingerprint of the files of a folder, names included."""
    if folder.is_file():
        return _file_print(folder)
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return _digest(part for path in files for part in (path.name, _file_print(path)))


def _file_print(path: Path) -> str:
    found = hashlib.sha256()
    try:
        size = path.stat().st_size
        found.update(str(size).encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                while block := file.read(1 << 20):
                    found.update(block)
            else:
                for number in range(_BLOCKS):
                    file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
                    found.update(file.read(_BLOCK))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a readable file") from error
    return found.hexdigest()


def _digest(texts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()[:32]
