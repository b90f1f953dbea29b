"""A run's model evaluated: the report of its training, its adapter in PEFT's format, and evaluations beside them."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from flax import nnx

from fit_jax.config import Config
from fit_jax.config_files import config_differences, dump_config, read_config
from fit_jax.data.own_data import read_description
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Evaluation, Subject, answer, evaluated_splits, is_written
from fit_jax.evaluation.mixture_card import mixture_card
from fit_jax.evaluation.model_card import DataSource, model_card
from fit_jax.evaluation.opening import Opening
from fit_jax.evaluation.queries import Group
from fit_jax.evaluation.report import FOLDER, Before
from fit_jax.evaluation.run_report import report_run
from fit_jax.evaluation.text_perplexity import MeasuredTexts, text_perplexities
from fit_jax.files import PARTIAL, check_folder_name, make_folder, remove_partials, write_text
from fit_jax.foreign import exists, named, read_text, shown
from fit_jax.models.adapters import TrainedAdapter, trained_adapter, write_adapter
from fit_jax.models.model_folder import CONFIG_FILES, open_pretrained
from fit_jax.parallel.processes import as_lead_finds, is_lead, on_all, on_lead
from fit_jax.runs.inputs import of_task as prints_of_task
from fit_jax.runs.inputs import read_inputs
from fit_jax.runs.parts import of_task
from fit_jax.runs.preflight import check_evaluation_batch
from fit_jax.runs.run import Run, load_model, scorer, starting_state, subject_of
from fit_jax.runs.run_folder import CARD, CONFIG, EVALUATIONS, MAY_DIFFER, saved_config
from fit_jax.runs.texts import measured_texts

ADAPTER = "adapter"
# Beginnings of the fields that say what an evaluation asks.
_ASKED = ("evaluation.", "train.long_text")
# Fields that say where and how fast an evaluation runs, and not what it asks.
RESULTS_STAY = (*(name for name in MAY_DIFFER if not name.startswith(_ASKED)), "evaluation.batch_size")
_LONGEST_NAME = 80


def has_report(run: Run) -> bool:
    """Whether the run was evaluated to the end, which the card tells, as the lead sees it; every process asks."""
    names = (f"{FOLDER}/index.html", CARD, *([ADAPTER] if _has_adapter(run) else []))
    return as_lead_finds(lambda: all((run.folder / name).exists() for name in names))


def _has_adapter(run: Run) -> bool:
    """Whether the run's folder is to hold an adapter in PEFT's format."""
    return run.lora.rank > 0 and run.model.pretrained is not None


def drop_report(run: Run) -> None:
    """Lets the report count as none: its model is trained further, or its files are replaced one by one."""
    on_lead(partial((run.folder / CARD).unlink, missing_ok=True))


def evaluate_run(
    run: Run, which: int | Literal["best", "last"] = "best", name: str | None = None
) -> dict[str, Evaluation]:
    """Evaluates a checkpoint of the run, writes a report and prints the main table.

    Args:
        run: The run; its config says what is asked.
        which: The checkpoint.
        name: Keeps the report in `evaluations/NAME`. None renews the report of the training, with the model card and,
            where an adapter was trained on a pretrained model, the adapter in PEFT's format.

    Returns:
        What was asked and answered, by task: one, or those of a mixture.

    Raises:
        InputError: There is no such checkpoint, `evaluation` names a split that the task lacks, or another evaluation
            has that name.
        RunFailed: The adapter does nothing.
    """
    # Reports tell what the model is, also where that is an adapter's to say.
    config = replace(run.config, lora=run.lora)

    def load() -> Subject:
        check_evaluation_batch(run.model, config, run.mesh)
        model = load_model(run, which)
        if name is not None:
            evaluation_folder(run, which, name)
        elif _has_adapter(run):
            adapter = trained_adapter(nnx.merge(model.graphdef, *model.params), run.lora)
            on_lead(partial(_keep_adapter, run, adapter))
        return subject_of(run, model)

    def before(openings: Sequence[Opening], texts: Sequence[MeasuredTexts]) -> list[Before]:
        answered = before_tuning(run, name is None, openings, texts)
        if name is None:  # all is answered; from now on files of the report are replaced
            drop_report(run)
        return answered

    place = run.folder / (FOLDER if name is None else f"{EVALUATIONS}/{name}")
    texts = measured_texts(run, rehearsed=name is None)
    with dropped_if_fruitless(place):
        evaluations = report_run(place, run.task, load, config, before, texts)
    if name is None:
        on_lead(lambda: write_text(run.folder / CARD, _card(replace(run, config=config), evaluations)))
    return evaluations


def _card(run: Run, evaluations: Mapping[str, Evaluation]) -> str:
    answers, came_as = {name: evaluation.predictions for name, evaluation in evaluations.items()}, _came_as(run)
    if not run.task.parts:
        return model_card(run.config, run.task, answers[run.task.text.name], _source_of(run), came_as)
    parts = {name: of_task(run, name) for name in run.task.parts}
    sources = {name: _source_of(part, prints_of_task(name)) for name, part in parts.items()}
    configs = {name: part.config for name, part in parts.items()}
    return mixture_card(run.config, configs, run.task, answers, sources, came_as)


def _came_as(run: Run) -> str | None:
    """How the run's base is stored quantised; None where it is plain, or gone by now."""
    try:
        found = open_pretrained(run.model.pretrained, CONFIG_FILES) if run.model.pretrained else None
    except InputError:
        return None
    return found.quantization.method if found and found.quantization else None


def _source_of(run: Run, of: str = "") -> DataSource:
    """Where the run's data came from, whose fingerprints' names end in `of`; files that are gone are not known."""
    kept, task = read_inputs(run.folder), run.config.task
    prints = {} if kept is None else kept.prints
    of_splits = {name: found for name in run.task.splits if (found := prints.get(f"the examples of split {name}{of}"))}
    try:
        own = read_description(Path(task.file)) if task.name == "jsonl" and task.file else None
    except InputError:
        own = None
    if own is None:
        return DataSource(prints=of_splits)
    return DataSource(tuple(Path(name).name for name in (*own.files, *own.test_files)), own.hub, of_splits)


def before_tuning(run: Run, answers: bool, openings: Sequence[Opening], texts: Sequence[MeasuredTexts]) -> list[Before]:
    """What the model that the run was tuned from says; nothing where that is gone.

    Args:
        run: The run.
        answers: Whether it is to answer the questions of the openings.
        openings: The questions about each task.
        texts: What its perplexity is measured of; random weights have none worth measuring.
    """
    random = run.model.pretrained is None
    texts = () if random else texts
    if not (answers or texts):
        return [Before() for _ in openings]
    try:
        placed = on_all(partial(starting_state, run, None))
    except InputError as error:
        if is_lead():
            print(f"the report shows nothing from before tuning: {error}", flush=True)
        return [Before() for _ in openings]
    subject = Subject(run.encoder, scorer(run, placed.graphdef), placed.state.params)
    perplexities = text_perplexities(texts, subject.scorer, subject.params)
    if not answers:
        return [Before((), perplexities) for _ in openings]
    asked, found = run.config.evaluation, []
    for part, opening in zip(run.task.each.values(), openings):
        written = asked.written_tokens if is_written(part, run.config) else None
        (answered,) = answer([Group.of(opening.queries)], subject, written, asked.beams)
        found.append(Before(answered, perplexities, random))
    return found


def evaluation_name(
    run: Run, which: int | Literal["best", "last"], measures: Mapping[str, str] | None = None
) -> str | None:
    """A name for an evaluation after what it asks otherwise than the training's own; None where that is nothing.

    Args:
        run: The run; its config says what is asked.
        which: The checkpoint.
        measures: What is measured in the place of focus accuracy, and on what.
    """
    rows = config_differences(saved_config(run.folder), run.config, RESULTS_STAY)
    changes = list((measures or {}).items())
    changes += [(row.partition(": ")[0].rpartition(".")[2], row.rpartition(" -> ")[2]) for row in rows]
    if which != "best":
        changes.append(("checkpoint", str(which)))
    words = (re.sub("[^A-Za-z0-9]+", "-", f"{field} {value}").strip("-") for field, value in changes)
    return "_".join(words)[:_LONGEST_NAME].lower() or None


def evaluation_folder(run: Run, which: int | str, name: str, measures: Mapping[str, str] | None = None) -> Path:
    """The folder of an evaluation, made by the lead with the config that it is made with.

    Raises:
        InputError: Another evaluation has that name, or no folder can have it, or as `evaluated_splits`.
    """
    for task in run.task.each.values():
        evaluated_splits(task, run.config)
    folder = run.folder / EVALUATIONS / name
    on_lead(lambda: _claim(run, which, name, measures or {}))
    return folder


@contextmanager
def dropped_if_fruitless(folder: Path) -> Iterator[None]:
    """Removes the new folder of an evaluation that fails before it has written more than the config it is made with."""
    is_new = not exists(folder)
    try:
        yield
    except Exception:
        if is_new and is_lead() and [path.name for path in folder.glob("*")] == [CONFIG]:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others stand beside it
                folder.parent.rmdir()
        raise


def _claim(run: Run, which: int | str, name: str, measures: Mapping[str, str]) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"name {shown(name)}: write letters, digits, dots, dashes and underscores")
    check_folder_name(name, "name")
    folder = run.folder / EVALUATIONS / name
    asked = "".join(f"# {measure}: {shown(what)}\n" for measure, what in measures.items())
    head = f"# checkpoint: {which}\n{asked}"
    path = folder / CONFIG
    if path.exists():
        is_headed = [line for line in read_text(path).splitlines() if line.startswith("#")] == head.splitlines()
        if not is_headed or config_differences(read_config(Config, path), run.config, RESULTS_STAY):
            raise InputError(f"{named(folder)}: holds another evaluation; choose another name")
    make_folder(folder)
    for place in (folder, *folder.glob("tasks/*")):
        remove_partials(place)
    write_text(path, head + dump_config(replace(run.config, run_dir=".")))


def _keep_adapter(run: Run, adapter: TrainedAdapter) -> None:
    partial = run.folder / f"{PARTIAL}{ADAPTER}"
    partial.mkdir()
    try:
        write_adapter(partial, adapter)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(run.folder / ADAPTER, ignore_errors=True)
    os.replace(partial, run.folder / ADAPTER)
