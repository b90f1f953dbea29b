"""From a config to a trained run folder: starts, resumes, or finds that nothing is left to do."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from enum import Enum
from functools import cache, partial
from typing import NamedTuple

import jax
from flax import nnx

from fit_jax.config import Config
from fit_jax.data.loader import TrainLoader
from fit_jax.data.sampler import BatchType
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Validation, evaluated_splits
from fit_jax.files import make_folder
from fit_jax.methods import training_method
from fit_jax.methods.method import TrainingMethod
from fit_jax.models.decoder import Params
from fit_jax.parallel.config import CONTEXT
from fit_jax.parallel.processes import is_lead, on_lead
from fit_jax.runs.evaluating import drop_report
from fit_jax.runs.inputs import record_versions
from fit_jax.runs.opening_lines import opening_lines
from fit_jax.runs.preflight import check_batch, check_disk, check_evaluation_batch, check_examples, check_program
from fit_jax.runs.resolve import check_mesh
from fit_jax.runs.run import (
    Run,
    frozen_are_given,
    load_model,
    open_checkpoints,
    read_progress,
    scorer,
    shapes_of,
    starting_state,
    subject_of,
)
from fit_jax.runs.run_folder import FIRST_STAGE
from fit_jax.runs.texts import check_measured, rehearsal_rows
from fit_jax.runs.trackers import Trackers
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.display import Display
from fit_jax.training.loop import Events, Loop
from fit_jax.training.metrics import FIGURE, TENSORBOARD, MetricsLog, Records
from fit_jax.training.optimizer import Optimizer, make_optimizer
from fit_jax.training.progress import Progress
from fit_jax.training.rehearsal import Rehearsal
from fit_jax.training.state import PlacedState, TrainState, with_objective
from fit_jax.training.step import StepMetrics, abstract_like, compile_train_step
from fit_jax.training.stopping import Stopping
from fit_jax.training.stream import BatchStream
from fit_jax.training.trace import Trace

# How full the rows of a step are on average whose number of examples is fixed; the rest is room for longer ones.
_FILLED = 0.8


class Ending(Enum):
    """How a call of `train` ended; the values say it to the user."""

    ALL_STEPS = "trained to the last step"
    PATIENCE = "stopped early: validation no longer improved"
    ALREADY = "this run is finished; nothing is left to train"
    STOPPED = "told to stop; the state is saved, the same command goes on from here"


def train(run: Run, trackers: Trackers | None = None) -> Ending:
    """Trains a run from its last checkpoint, or from the start where it has none.

    Args:
        run: The run.
        trackers: Get the records that `metrics.jsonl` of the run's folder gets.

    Raises:
        InputError: Sizes that do not fit together or the machine, an example that cannot be evaluated later, or
            checkpoints that do not fit the run.
        TrainingFailed: The loss or the gradient is not finite; the last checkpoint is intact.
    """
    config = run.config
    check_mesh(config, run.mesh)
    for task in run.task.each.values():
        evaluated_splits(task, config)  # a misspelt split is to be reported now, not after hours of training
    if _finished(run):
        return Ending.ALREADY
    shapes_of(run, None)  # no batch helps where the parameters do not fit
    check_batch(run.model, config, run.mesh)
    check_evaluation_batch(run.model, config, run.mesh)
    check_examples(run.task, run.encoder, config)
    check_measured(run)
    method = training_method(run.task, config)
    loader = _loader(run, method)
    steps = _steps(config, loader)
    second = method.second
    if second is None:
        return _train_stage(run, method, loader, steps, trackers=trackers)
    later = min(max(round(second.share * steps), 1), steps - 1)
    if later < 1:
        raise InputError(f"train.steps: {steps}, but {config.train.method} trains twice; ask for two steps or more")
    first = replace(run, folder=run.folder / FIRST_STAGE)
    if not _finished(first):
        on_lead(partial(make_folder, first.folder))
        if (ending := _train_stage(first, method, loader, steps - later)) is Ending.STOPPED:
            return ending
    model = load_model(first, "last")
    method = second.build(subject_of(run, model))
    start = model.params[0] if second.goes_on else None
    return _train_stage(run, method, _loader(run, method), later, start, trackers)


def _finished(run: Run) -> bool:
    """Whether the newest checkpoint is the last."""
    with closing(open_checkpoints(run, cleans=True)) as checkpoints:
        progress = last_progress(checkpoints, run.config)
        checkpoints.tidy(progress.stopping.best_step)
        return progress.finished is not None


def _train_stage(
    run: Run,
    method: TrainingMethod[BatchType],
    loader: TrainLoader[BatchType],
    steps: int,
    start: nnx.State | None = None,
    trackers: Trackers | None = None,
) -> Ending:
    """Trains for some steps, or from the last checkpoint in the run's folder on.

    Args:
        run: The run, with the folder of the stage.
        method: What is minimised on what.
        loader: Its batches.
        steps: Updates from the stage's start to its end.
        start: The trained parameters it starts from; None for those that every run starts from.
        trackers: Get its records.
    """
    config = run.config
    with ExitStack() as stack:
        checkpoints = open_checkpoints(run, cleans=True)
        stack.callback(checkpoints.close)
        progress = last_progress(checkpoints, config)
        _restore(loader, progress, checkpoints)
        decay = config.optimizer.weight_decay if method.weight_decay is None else method.weight_decay
        rate = config.optimizer.learning_rate * method.rate
        asked = replace(config.optimizer, weight_decay=decay, learning_rate=rate)
        optimizer = make_optimizer(asked, steps, method.moves)
        placed = _state_at(run, method, optimizer, checkpoints, progress.step)
        if start is not None and progress.step == 0:
            placed = placed._replace(state=placed.state._replace(trainable=start))
        kept = placed.state._replace(frozen=()) if frozen_are_given(run) else placed.state
        saves = Events.of(config.train, steps).saves_after(progress.step)
        on_lead(partial(check_disk, run.folder, kept, config, saves))
        train_step = _step_of_each_width(run, method, loader, optimizer, placed)
        validation = Validation(run.task, run.encoder, scorer(run, placed.graphdef), config, method.validated)

        def validate(params: Params) -> dict[str, float]:
            return validation(params) | {FIGURE + name: value for name, value in method.figures.items()}

        log = on_lead(partial(MetricsLog, run.folder, progress.metrics_bytes, progress.step, progress.metrics_sha256))
        if log is not None:
            stack.callback(log.close)
        display = Display(steps, progress.step, shown=is_lead())
        stack.callback(display.close)
        for line in (
            *(on_lead(partial(record_versions, run.folder)) or ()),
            *opening_lines(run, placed, progress.step, steps),
        ):
            display.note(line)
        batches = BatchStream(loader, config.train.batch_size, run.mesh)
        records = Records(log, display)
        if trackers is not None:
            on_lead(trackers.open)
            records = Records(log, display, trackers.write)
        trace = Trace(run.folder / TENSORBOARD, config.train.profile if is_lead() else 0)
        loop = Loop(Events.of(config.train, steps), batches, train_step, validate, checkpoints, records, trace)
        drop_report(run)
        loop.run(placed.state, progress)
    if loop.stopped:
        return Ending.STOPPED
    return Ending.ALL_STEPS if progress.finished == "steps" else Ending.PATIENCE


def last_progress(checkpoints: Checkpoints, config: Config) -> Progress:
    """What the newest checkpoint says, or the start of a run.

    Raises:
        InputError: The checkpoint is damaged.
    """
    saved = checkpoints.steps()
    if saved:
        return read_progress(checkpoints, saved[-1])
    return Progress(Stopping(config.train.best, config.train.patience))


def steps_of(run: Run) -> int:
    """The optimizer steps that a run takes: as many as its config says, or those of its epochs.

    Raises:
        InputError: An example does not fit into a row, or the method cannot train on the task.
    """
    return run.config.train.steps or _steps(run.config, _loader(run, training_method(run.task, run.config)))


class FixedBudget(NamedTuple):
    """What makes the budgets of several runs equal, by the fields of `train` that say it.

    Attributes:
        steps: Updates.
        examples_per_step: Training examples of each; None where a row holds one example in any case.
    """

    steps: int
    examples_per_step: int | None


def budget_of(run: Run) -> FixedBudget:
    """The budget that a run takes: as its config says, or that of its epochs and of rows that are nearly full.

    Raises:
        InputError: As `steps_of`.
    """
    train = run.config.train
    examples = train.examples_per_step
    if examples is None and train.packing:
        loader = _loader(run, training_method(run.task, run.config))
        examples = max(round(_FILLED * len(run.task.splits["train"].examples) / loader.steps_per_epoch), 1)
        run = replace(run, config=replace(run.config, train=replace(train, examples_per_step=examples)))
    return FixedBudget(steps_of(run), examples)


def _loader(run: Run, method: TrainingMethod[BatchType]) -> TrainLoader[BatchType]:
    context = run.mesh.shape[CONTEXT]
    return TrainLoader(method.sampler, run.encoder, run.config, context, rehearsal=rehearsal_rows(run))


def _restore(loader: TrainLoader, progress: Progress, checkpoints: Checkpoints) -> None:
    if progress.loader is None:
        return
    try:
        loader.restore(progress.loader)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"the checkpoint's place in the data is damaged ({error}); {checkpoints.remedy(progress.step)}"
        ) from error


def _steps(config: Config, loader: TrainLoader) -> int:
    return config.train.steps or max(round(config.train.epochs * loader.steps_per_epoch), 1)


def _state_at(
    run: Run, method: TrainingMethod, optimizer: Optimizer, checkpoints: Checkpoints, step: int
) -> PlacedState:
    """The state that training goes on from: that of the checkpoint of `step`, or a fresh one at step 0."""
    placed = starting_state(run, optimizer) if step == 0 or frozen_are_given(run) else shapes_of(run, optimizer)
    placed = with_objective(placed, method.objective.start(), run.mesh)
    return placed if step == 0 else placed._replace(state=checkpoints.restore(step, placed.state))


def _step_of_each_width(
    run: Run,
    method: TrainingMethod[BatchType],
    loader: TrainLoader[BatchType],
    optimizer: Optimizer,
    placed: PlacedState,
) -> Callable[[TrainState, BatchType], tuple[TrainState, StepMetrics]]:
    """The train step, compiled for the widest batches now and for others when they first come."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), placed.state)

    @cache
    def compiled(width: int) -> jax.stages.Compiled:
        with jax.transfer_guard("allow"):
            program = compile_train_step(
                placed.graphdef,
                optimizer,
                shapes,
                abstract_like(loader.empty(width), run.mesh),
                objective=method.objective,
                rehearsal=Rehearsal.of(run.config.rehearsal, run.model),
                balance=run.config.train.expert_balance,
                accumulate=run.config.train.accumulate,
                seed=run.config.seed,
            )
            check_program(program, run.config, run.mesh)
            return program

    compiled(loader.widths[-1])  # the one that takes most memory
    return lambda state, batch: compiled(batch.rows.tokens.shape[1])(state, batch)
