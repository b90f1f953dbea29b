"""What would fail hours later, reported before the first step: examples, memory and disk."""

import copy
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.combinations import combination_queries
from fit_jax.evaluation.decoy_evaluation import decoy_queries
from fit_jax.evaluation.evaluator import evaluated_splits
from fit_jax.evaluation.queries import ask
from fit_jax.evaluation.scoring import STEP
from fit_jax.evaluation.turn_evaluation import turn_queries
from fit_jax.focus.example import Example
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.foreign import named
from fit_jax.models.config import DecoderConfig
from fit_jax.parallel.config import CONTEXT, TENSOR
from fit_jax.parallel.sharding import byte_count, bytes_held, row_shards
from fit_jax.runs.run_folder import CHECKPOINTS
from fit_jax.units import size

_WINDOW = 256  # examples that are encoded at once


def check_examples(task: Task, encoder: PromptEncoder, config: Config) -> None:
    """Encodes all that will be validated on or evaluated: the longest prompt of each example, and all asked again.

    Raises:
        InputError: One does not fit into a row, or holds what cannot be written down.
    """
    encoder = copy.copy(encoder)  # whose counts are about what is asked
    asked = config.evaluation
    checked = [(task, "validation", asked.validation_examples)]
    checked += [(part, name, asked.examples) for part in task.each.values() for name in evaluated_splits(part, config)]
    for of, name, limit in checked:
        examples = of.splits[name].examples
        count = len(examples) if limit is None else min(limit, len(examples))
        seed = config.seed if name == "validation" else config.evaluation_seed
        for start in range(0, count, _WINDOW):
            window = examples[start : min(start + _WINDOW, count)]
            for example in window:
                _check_text(name, example)
            groups = [ask(of.text.of(e), name, e, asked.paraphrases, seed) for e in window]
            again = [q for _, q, _ in decoy_queries(of.text, groups, seed)] if asked.decoys else []
            again += [q for _, q, _ in turn_queries(of.text, groups, seed)] if asked.turns else []
            several = [] if name == "validation" else combination_queries(of.text, {name: window}, config)
            again += [max(group.queries, key=lambda query: len(query.instruction)) for group, _ in several]
            try:
                encoder.encode(window, [max(group.instructions, key=len) for group in groups])
                encoder.encode([q.example for q in again], [q.instruction for q in again])
            except InputError as error:
                raise InputError(f"split {name}: {error}") from error


def _check_text(split: str, example: Example) -> None:
    """Refuses text that no report could hold: half of a surrogate pair, as broken JSON escapes give it."""
    values = (part for feature, value in example.spurious.items() for part in (feature, value.value))
    for text in (example.uid, *example.slots.values(), *example.candidates, *values, *example.slices.values()):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"split {split}, example {example.uid!r}: its text {text[:60]!r} holds half a character "
                f"({error.reason}); fix it in the data"
            ) from error


def check_batch(model: DecoderConfig, config: Config, mesh: jax.sharding.Mesh) -> None:
    """Holds the least that a step's batch takes against the memory there is, before anything of its size is made.

    Raises:
        InputError: It is more.
    """
    train = config.train
    of_step = train.batch_size + config.rehearsal.rows_per_step
    rows = of_step // (train.accumulate * row_shards(mesh))
    tokens = rows * train.sequence_length // mesh.shape[CONTEXT]
    item = jnp.dtype(model.compute_dtype).itemsize
    # What rematerialisation keeps of every layer, the layer in flight, and in plain XLA its scores.
    least = tokens * item * (model.layers * model.width + 4 * model.width + model.feed_forward)
    if mesh.devices.flat[0].platform == "cpu":
        least += 4 * tokens * train.sequence_length * model.heads / mesh.shape[TENSOR]
    batch = 4 * of_step * train.sequence_length * 4  # tokens, positions, visibility and mask on the host
    _compare(least, batch, mesh, "at least ", config)


def check_evaluation_batch(model: DecoderConfig, config: Config, mesh: jax.sharding.Mesh) -> None:
    """Holds the least that a batch of an evaluation takes, all its rows as short as can be, against the memory.

    Raises:
        InputError: It is more.
    """
    rows = config.evaluation.batch_size
    item = jnp.dtype(model.compute_dtype).itemsize
    tokens = rows * STEP // (row_shards(mesh) * mesh.shape[CONTEXT])
    batch = 4 * rows * STEP * 4  # as in training
    if (short := _short_of(tokens * item * (4 * model.width + model.feed_forward), batch, mesh)) is not None:
        raise InputError(
            f"evaluation.batch_size {rows}: a batch needs at least {size(short.needed)} of memory, {short.place} has "
            f"{size(short.there)} free; try an evaluation.batch_size of "
            f"{max(int(rows * short.there / short.needed), 1)}"
        )


def check_state(state: Any, mesh: jax.sharding.Mesh) -> None:
    """Holds parameters and the optimizer's state against the memory there is, before they are made.

    Args:
        state: A pytree of `jax.ShapeDtypeStruct`s with shardings.
        mesh: The devices.

    Raises:
        InputError: They take more.
    """
    if (short := _short_of(bytes_held(state), 0, mesh)) is not None:
        raise InputError(
            f"the model's parameters, with the optimizer's state where it is trained, take {size(short.needed)} of "
            f"memory, {short.place} has {size(short.there)} free; take a smaller model, more devices or lora.rank; "
            "`python -m fit_jax.plan` tells what fits"
        )


def check_program(program: jax.stages.Compiled, config: Config, mesh: jax.sharding.Mesh) -> None:
    """Holds what a compiled step takes besides its arguments against the memory there is.

    Raises:
        InputError: It is more.
    """
    needs = program.memory_analysis()
    if needs is not None:  # not every backend tells
        new = max(needs.output_size_in_bytes - needs.alias_size_in_bytes, 0)
        _compare(needs.temp_size_in_bytes + new, 0, mesh, "", config)


def _compare(device: float, host: float, mesh: jax.sharding.Mesh, about: str, config: Config) -> None:
    """Refuses a step for which there is too little memory."""
    if (short := _short_of(device, host, mesh)) is not None:
        rows = config.train.batch_size
        raise InputError(
            f"train.batch_size {rows} x train.sequence_length {config.train.sequence_length}: a step needs {about}"
            f"{size(short.needed)} of memory, {short.place} has {size(short.there)} free; try a "
            f"train.batch_size of {max(int(rows * short.there / short.needed), 1)}, or raise train.accumulate"
        )


class _Short(NamedTuple):
    """Where there is too little memory, and the bytes needed and there."""

    place: str
    needed: float
    there: int


def _short_of(device: float, host: float, mesh: jax.sharding.Mesh) -> _Short | None:
    """Whether so many bytes of each device, and of the host, are more than there is; devices may use the host's."""
    here = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    if here[0].platform == "cpu":
        pools = [("this machine", device * len(here) + host, host_memory())]
    else:
        stats = here[0].memory_stats() or {}
        limit = stats.get("bytes_limit")
        free = None if limit is None else limit - stats.get("bytes_in_use", 0)
        pools = [(f"a {here[0].device_kind}", device, free), ("this machine", host, host_memory())]
    for place, needed, there in pools:
        if there is not None and needed > there:
            return _Short(place, needed, there)
    return None


def host_memory() -> int | None:
    """Bytes that a new program may take of this machine's memory, limits of a container included; None if unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            used = int((group / "memory.current").read_text()) - int(cached.get("inactive_file", 0))
            found.append(int(most) - used)
    except (OSError, ValueError, IndexError):
        pass  # another system
    return min(found) if found else None


def check_disk(folder: Path, state: Any, config: Config, saves: int) -> None:
    """Holds the checkpoints that will be there at once against the free space of the run folder's disk.

    Args:
        folder: The run folder; checkpoints that it holds already are taken into account.
        state: What a checkpoint keeps: a pytree of arrays or shapes.
        config: The run.
        saves: Checkpoints still to be written, at most.

    Raises:
        InputError: There is too little.
    """
    each = byte_count(state)
    at_once = config.train.keep + 2  # the newest, the best, and one that is being written
    held = sum(path.stat().st_size for path in (folder / CHECKPOINTS).rglob("*") if path.is_file())
    needed = min(each * at_once - held, each * saves)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{named(folder)}: {min(at_once, saves)} checkpoints of {size(each)} are kept at once (train.keep "
            f"{config.train.keep}, the best, one under way), its disk has {size(free)} free; free space, lower "
            "train.keep or choose another run_dir"
        )
