"""What a run was made from, beside its config: fingerprints of its data, tokenizer and base model, in `inputs.json`.

The config names folders and hub ids; what stands there may change while the name does not. A run that went on with
other labels, another tokenizer or another base would say nothing of it, and its results would be of no one run.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from platform import python_version
from typing import Any, Literal

import fit_jax
from fit_jax.config import Config, TaskConfig
from fit_jax.config_files import file_values
from fit_jax.data.kept_task import plain_rho
from fit_jax.data.own_data import read_description
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.files import write_text
from fit_jax.focus.example import Example
from fit_jax.foreign import exists, listed, named, read_object
from fit_jax.hub import local_folder, pinned
from fit_jax.models.adapter_config import CONFIG, WEIGHTS, adapter_folder
from fit_jax.models.model_folder import CONFIG_FILES, HUB_FILES
from fit_jax.runs.resolve import ResolvedConfig
from fit_jax.sums import Digests

BASE_WEIGHTS = "the weights of model.pretrained"
FILE, VERSIONS = "inputs.json", "versions.json"

# Whether a run may go on with other inputs than those it was made from.
Changed = Literal["refuse", "accept"]

# Fields of a config that say where something lies, which may be elsewhere now.
_PLACES = ("run_dir", "model.pretrained", "lora.adapter", "tokenizer.path", "task.file", "task.data_dir")
WINDOW = 1 << 12  # examples that are read at once
# What helps besides putting inputs back, also who exports or loads the run.
_ACCEPT = (
    "go on with what is there now with --changed_inputs accept of train, evaluate or steer (after train's, every "
    "command does)"
)
# The packages on which results depend most, reported where they have changed.
_MAIN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "transformers", "tokenizers")


@dataclass(frozen=True)
class Inputs:
    """What a run was made from.

    Attributes:
        prints: Fingerprints by what they are of, in words for a message.
        revisions: The commit of each hub id that was used.
        files: What `Digests` keeps of large files.
    """

    prints: dict[str, str]
    revisions: dict[str, str] = field(default_factory=dict)
    files: dict[str, object] = field(default_factory=dict, compare=False)


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
        raise InputError(f"{named(path)}: is damaged: it lacks texts or has others; put it back from a copy")
    files = kept.section("large_files")
    return Inputs(*texts, files={} if files is None else dict(files.values))


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Keeps in the run folder what it is made from."""
    kept = {"fingerprints": inputs.prints, "hub_revisions": inputs.revisions, "large_files": inputs.files}
    write_text(folder / FILE, json.dumps(kept, indent=2, sort_keys=True) + "\n")


def revisions(resolved: ResolvedConfig, kept: Inputs | None = None) -> dict[str, str]:
    """The commits of the hub ids that a run names, beside those that it keeps; the process may have used others."""
    named_ids = (resolved.model.pretrained, resolved.lora.adapter, resolved.tokenizer.path)
    found = {name: commit for name, commit in pinned().items() if name in named_ids}
    return found if kept is None else kept.revisions | found


def check_are_kept(folder: Path, kept: Inputs | None, changed: Changed) -> None:
    """Checks that a run that has begun keeps fingerprints.

    Raises:
        InputError: It does not, as one of a version before them or one whose file was deleted; with nothing to
            compare with, its inputs are not to be accepted.
    """
    if kept is None and changed == "refuse":
        raise InputError(
            f"{named(folder / FILE)}: is missing, and nothing else tells what this run was made from; put it back from "
            f"a copy, or {_ACCEPT}"
        )


def check_inputs(
    folder: Path, kept: Inputs, found: dict[str, str], changed: Changed, needed: Sequence[str] = ()
) -> list[str]:
    """Compares fingerprints with those that a run keeps.

    Args:
        folder: The run's.
        kept: What it keeps.
        found: The fingerprints of what there is now.
        changed: Whether it may have changed.
        needed: What counts as changed also where one side has no fingerprint of it.

    Returns:
        What has changed, where that is accepted.

    Raises:
        InputError: Something has changed and is not to be accepted.
    """
    names = [name for name, value in found.items() if kept.prints.get(name, value) != value]
    names += [name for name in needed if name not in kept.prints or name not in found]
    names.sort(key=lambda name: name.startswith("the examples"))  # what they follow from is reported first
    if names and changed == "refuse":
        raise InputError(
            f"{named(folder)}: not what this run was made from: {listed(names, 2)}; put it back as it was, "
            f"choose another run_dir, or {_ACCEPT}"
        )
    return names


def fingerprints(
    task: Task, resolved: ResolvedConfig, kept: bool = False, digests: Digests | None = None
) -> dict[str, str]:
    """Fingerprints of the data and of the base model and the adapter that training begins with.

    Args:
        task: The data.
        resolved: Names the base model and the files of data of one's own.
        kept: Whether the task is the run folder's own copy: then neither its training examples nor its files are read.
        digests: Knows of large files; by default all are read.
    """
    digests = digests or Digests({})
    found: dict[str, str] = {}
    for (name, part), asked in zip(task.each.items(), resolved.asked.task.each):
        of = of_task(name) if task.parts else ""
        found |= {what + of: print_ for what, print_ in _task_prints(part, kept).items()}
        if not kept:
            found |= {what + of: print_ for what, print_ in _own_files(asked, digests).items()}
    if not kept and (files := resolved.asked.rehearsal.files):
        prints = (_file_print(Path(file).expanduser(), digests) for file in files)
        found["the files of rehearsal.files"] = _digest(prints)
    if resolved.model.pretrained is not None:
        # The weights are in the checkpoints where all are trained; those of the hub are then known by their commit.
        is_base = resolved.lora.rank > 0
        folder = local_folder(resolved.model.pretrained, HUB_FILES if is_base else CONFIG_FILES, "model")
        found["the config of model.pretrained"] = _print_of(folder, CONFIG_FILES, digests)
        weights = sorted(folder.glob("*.safetensors"))
        if is_base or (weights and folder == Path(resolved.model.pretrained)):
            found[BASE_WEIGHTS] = _print_of(folder, ("*.safetensors",), digests)
    if resolved.lora.adapter is not None:
        found["lora.adapter"] = _print_of(adapter_folder(resolved.lora.adapter), (CONFIG, WEIGHTS), digests)
    return found


def of_task(name: str) -> str:
    """What the names of the fingerprints of a mixture's task end in."""
    return f" of task {name}"


def _task_prints(task: Task, kept: bool) -> dict[str, str]:
    words = {f.name: getattr(task.text, f.name) for f in fields(task.text)}
    # A field that a later version adds changes nothing while it has its default.
    said = {f.name: repr(words[f.name]) for f in fields(task.text) if f.name != "parts" and words[f.name] != f.default}
    rhos = [[name, plain_rho(split.rho)] for name, split in task.splits.items()]
    found = {
        "how prompts are worded": _digest([json.dumps(said, sort_keys=True)]),
        "what is known of the data": _digest([json.dumps([rhos, dict(task.dropped)], sort_keys=True)]),
    }
    for name, split in task.splits.items():
        if not (kept and name == "train"):
            found[f"the examples of split {name}"] = _digest(_example_lines(split.examples))
    return found


def config_print(path: Path) -> dict[str, str]:
    """The fingerprint of a run's own config file, except for places; what lies there has fingerprints of its own.

    It is one of what was written: fields and defaults that a later version changes do not change it.
    """
    asked = {name: value for name, value in file_values(Config, path).items() if name not in _PLACES}
    return {f"what {path.name} says": _digest([json.dumps(asked, sort_keys=True, default=str)])}


def tokenizer_print(folder: Path) -> dict[str, str]:
    """The fingerprint of the tokenizer that a run keeps."""
    return {f"the folder {folder.name}": _print_of(folder, ("*",), Digests({}))}


def _example_lines(examples: Sequence[Example]) -> Iterator[str]:
    yield str(len(examples))
    for start in range(0, len(examples), WINDOW):
        for e in examples[start : start + WINDOW]:
            parts = (e.uid, dict(e.slots), e.candidates, e.label, dict(e.spurious), dict(e.slices))
            yield json.dumps((*parts, e.own_answers, e.cluster), sort_keys=True)


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


def _own_files(task: TaskConfig, digests: Digests) -> dict[str, str]:
    """Of data of one's own: of the files that the description names."""
    if task.name != "jsonl" or task.file is None:
        return {}
    own, folder = read_description(Path(task.file)), Path(task.file).parent
    parts = {"files": own.files, "test_files": own.test_files}
    return {
        f"the {name} of {Path(task.file).name}": _digest(_file_print(folder / file, digests) for file in files)
        for name, files in parts.items()
        if files
    }


def _print_of(folder: Path, patterns: Iterable[str], digests: Digests) -> str:
    """The fingerprint of the files of a folder, names included."""
    if folder.is_file():
        return _file_print(folder, digests)
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        prints = pool.map(lambda path: _file_print(path, digests), files)
        return _digest(part for path, found in zip(files, prints) for part in (path.name, found))


def _file_print(path: Path, digests: Digests) -> str:
    try:
        return digests.of(path)
    except OSError as error:
        raise InputError(f"{named(path)} cannot be read: {error.strerror}; name a readable file") from error


def _digest(texts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()[:32]
