"""A run's parts: what its config names, built once and shared by training, evaluation and steering."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from flax import nnx
from jax.sharding import Mesh

from fit_jax.config import Config
from fit_jax.data.focus_sampling import check_combinations
from fit_jax.data.kept_task import MOST_BYTES, has_task, keep_task, kept_task
from fit_jax.data.own_data import functions_of
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.foreign import named, quoted, shown
from fit_jax.hub import NotAtHand, pin
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import is_lead, on_lead
from fit_jax.runs.inputs import (
    BASE_WEIGHTS,
    Changed,
    Inputs,
    check_are_kept,
    check_inputs,
    config_print,
    fingerprints,
    read_inputs,
    revisions,
    tokenizer_print,
    write_inputs,
)
from fit_jax.runs.preflight import check_state
from fit_jax.runs.pretrained import pretrained_state
from fit_jax.runs.resolve import ResolvedConfig, resolve
from fit_jax.runs.run_folder import (
    CONFIG,
    TASK,
    TOKENIZER,
    has_checkpoint,
    keep_tokenizer,
    opened_config,
    placed,
    run_tokenizer,
    saved_config,
)
from fit_jax.sums import Digests
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.optimizer import Optimizer
from fit_jax.training.progress import Progress
from fit_jax.training.state import PlacedState, abstract_state, init_state


@dataclass(frozen=True)
class Run:
    """Data, prompts, mesh and model shape of a run.

    Attributes:
        config: As the user gave it.
        folder: The run's folder.
        task: The data.
        encoder: The prompt code, with the run's tokenizer.
        mesh: All devices.
        model: The model's shape with nothing left open.
        lora: Its adapter, with what `config.lora.adapter` settles.
    """

    config: Config
    folder: Path
    task: Task
    encoder: PromptEncoder
    mesh: Mesh
    model: DecoderConfig
    lora: LoraConfig


class TrainedModel(NamedTuple):
    """A model read from a run's checkpoint.

    Attributes:
        graphdef: The structure.
        params: The states; `nnx.merge(graphdef, *params)` gives the `Decoder`.
        step: The checkpoint's step.
    """

    graphdef: nnx.GraphDef
    params: tuple[nnx.State, nnx.State]
    step: int


def set_up(config: Config, trains: bool = False, changed: Changed = "refuse", trust_code: bool = False) -> Run:
    """Builds the parts of a run; trains a tokenizer where a new run names none.

    A run that is not to be trained is asked about the examples that its folder keeps, wherever its data are now.

    Args:
        config: The run.
        trains: Whether the run is to be trained: its folder then keeps the tokenizer and what the run is made from.
        changed: Whether a run that has begun may go on with other data, tokenizer or weights.
        trust_code: Whether Python functions that the description of the data names may run, as they do where the run is
            to be trained. A run folder may be another's; a config that one trains with is one's own.

    Raises:
        InputError: What the config names is missing, malformed, does not fit, has changed, or is code not trusted.
    """
    folder = Path(config.run_dir)
    kept, begun = read_inputs(folder), has_checkpoint(folder)
    if begun:
        check_are_kept(folder, kept, changed)
    pin({} if kept is None else kept.revisions)
    try:
        resolved = resolve(config)
    except NotAtHand as error:
        if not begun:
            raise
        raise NotAtHand(
            f"{error}; where it lies elsewhere now, name that place: as model.pretrained or lora.adapter in "
            f"{folder / CONFIG}, or as an option of train, evaluate or steer (settings of fit_jax.load)"
        ) from error
    mesh = make_mesh(config.mesh)
    copied = not trains and has_task(folder / TASK)
    if not (copied or trains or trust_code):
        _refuse_code(config, folder)
    task = kept_task(folder / TASK) if copied else build_task(config.task, config.seed)
    check_combinations(config.focus, task)
    digests = Digests({} if kept is None else kept.files)
    found = fingerprints(task, resolved, copied, digests)
    if (folder / CONFIG).is_file():
        found |= config_print(folder / CONFIG)
    if kept is not None and begun:
        # The weights of one that lies elsewhere must be proved to be the same; they are not always read.
        base = saved_config(folder).model.pretrained if (folder / CONFIG).is_file() else None
        needed = (BASE_WEIGHTS,) if base != placed(config, Path()).model.pretrained else ()
        check_inputs(folder, kept, found | tokenizer_print(folder / TOKENIZER), changed, needed)
    tokenizer = run_tokenizer(folder, task, resolved.tokenizer)
    if trains:

        def keep() -> None:
            keep_tokenizer(folder, tokenizer)
            now = Inputs(found | tokenizer_print(folder / TOKENIZER), revisions(resolved, kept), digests.kept)
            whole = kept == now and (changed == "refuse" or _keeps_task(folder / TASK, resolved, now, digests))
            _keep_examples(config, task, whole)
            write_inputs(folder, now)

        on_lead(keep)
    encoder = PromptEncoder(
        tokenizer,
        task.text,
        config.focus.place,
        config.tokenizer.template,
        config.train.sequence_length,
        config.train.long_text,
    )
    return Run(config, folder, task, encoder, mesh, resolved.decoder(len(tokenizer)), resolved.lora)


def _keeps_task(folder: Path, resolved: ResolvedConfig, made_from: Inputs, digests: Digests) -> bool:
    """Whether the examples that a folder keeps are those that a run is made from, and not damaged."""
    try:
        found = fingerprints(kept_task(folder), resolved, True, digests)
    except InputError:
        return False
    return found.items() <= made_from.prints.items()


def _keep_examples(config: Config, task: Task, whole: bool) -> None:
    """Keeps the examples that are evaluated in the run's folder, where that is asked for and they are not `whole`."""
    folder = Path(config.run_dir)
    if not config.task.keep_examples:
        shutil.rmtree(folder / TASK, ignore_errors=True)
    elif not (whole and has_task(folder / TASK)) and not keep_task(folder / TASK, task):
        shutil.rmtree(folder / TASK, ignore_errors=True)
        print(
            f"note: {folder} does not keep the examples that are evaluated (task.keep_examples), more than "
            f"{MOST_BYTES >> 20} MiB; evaluating the run needs its data",
            flush=True,
        )


def _refuse_code(config: Config, folder: Path) -> None:
    """Refuses a run whose examples cannot be had without running code that its description names."""
    named_by = [(task.file, functions[0]) for task in config.task.each if (functions := functions_of(task))]
    for file, function in named_by:
        if not has_checkpoint(folder):
            raise InputError(f"{named(folder)}: holds no checkpoint yet; train first")
        raise InputError(
            f"{shown(str(folder))}: keeps no examples, and reading them runs Python code: {quoted(function)}; look at "
            f"{named(Path(str(file)))} and that code, then say that it may run with --trust_code (trust_code=True)"
        )


def open_run(folder: str | Path, trust_code: bool = False) -> Run:
    """The parts of a run that was trained, from its folder.

    Raises:
        InputError: The folder holds no run, or what its config names is gone or has changed.
    """
    return set_up(opened_config(Path(folder), ()), trust_code=trust_code)


def load_model(run: Run, which: int | Literal["best", "last"] = "best") -> TrainedModel:
    """The model of a checkpoint: of a step, the best by validation, or the last; step 0 is the model before tuning.

    Raises:
        InputError: There is no such checkpoint, or it does not fit the config.
    """
    if (kept := read_inputs(run.folder)) is not None:
        pin(kept.revisions)  # other runs may have been opened since this one
    if which == 0:
        placed = starting_state(run, None)
        return TrainedModel(placed.graphdef, placed.state.params, 0)
    checkpoints = open_checkpoints(run, cleans=False)
    try:
        steps = checkpoints.steps()
        if not steps:
            raise InputError(f"{named(run.folder)}: holds no checkpoint yet; train first")
        if isinstance(which, str) and which not in ("best", "last"):
            raise InputError(f"checkpoint {which!r}: write best, last or the number of a step")
        step = steps[-1] if isinstance(which, str) else which
        if which == "best" and (best := read_progress(checkpoints, steps[-1]).stopping.best_step) is not None:
            if best not in steps and is_lead():
                print(
                    f"note: {run.folder}: its best checkpoint, {best}, is gone; the last, {step}, is used", flush=True
                )
            step = best if best in steps else step
        if step not in steps:
            raise InputError(f"{named(run.folder)}: no checkpoint of step {step}; there are {str(steps)[1:-1]}")
        placed = starting_state(run, None) if frozen_are_given(run) else shapes_of(run, None)
        return TrainedModel(placed.graphdef, checkpoints.restore(step, placed.state).params, step)
    finally:
        checkpoints.close()


def subject(run: Run, which: int | Literal["best", "last"] = "best") -> Subject:
    """A checkpoint's model, ready to be asked; errors as `load_model`."""
    return subject_of(run, load_model(run, which))


def subject_of(run: Run, model: TrainedModel) -> Subject:
    """A model of the run, ready to be asked."""
    return Subject(run.encoder, scorer(run, model.graphdef), model.params)


def scorer(run: Run, graphdef: nnx.GraphDef) -> Scorer:
    """Scores answers by models of this run."""
    return Scorer(graphdef, run.mesh, run.config.evaluation.batch_size)


def starting_state(run: Run, optimizer: Optimizer | None) -> PlacedState:
    """The state that training starts from: the pretrained model's weights, or random ones drawn by the run's seed."""
    shapes_of(run, optimizer)
    make = init_state if run.model.pretrained is None else pretrained_state
    return make(run.model, run.lora, optimizer, run.mesh, run.config.seed)


def shapes_of(run: Run, optimizer: Optimizer | None) -> PlacedState:
    """Shapes and shardings of a training state, or of a model alone; an `InputError` where the memory has no room."""
    placed = abstract_state(run.model, run.lora, optimizer, run.mesh)
    check_state(placed.state, run.mesh)
    return placed


def open_checkpoints(run: Run, cleans: bool) -> Checkpoints:
    """The checkpoints in the run's folder; `cleans` as for `Checkpoints`."""
    train = run.config.train
    every = (train.checkpoint_every, train.validate_every)

    def due(step: int) -> bool:
        return any(n is not None and step % n == 0 for n in every)

    return Checkpoints(run.folder, train.keep, with_frozen=not frozen_are_given(run), cleans=cleans, due=due)


def read_progress(checkpoints: Checkpoints, step: int) -> Progress:
    """What the checkpoint of a step says besides the training state.

    Raises:
        InputError: The checkpoint is damaged.
    """
    try:
        return Progress.from_json(checkpoints.progress(step), step)
    except ValueError as error:
        raise InputError(
            f"checkpoint {named(checkpoints.folder / str(step))}: its progress is damaged or of another version "
            f"({error}); {checkpoints.remedy(step)}"
        ) from error


def frozen_are_given(run: Run) -> bool:
    """Whether the frozen parameters come from a pretrained model, so that no checkpoint needs to hold them."""
    return run.model.pretrained is not None and run.lora.rank > 0
