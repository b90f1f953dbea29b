"""What tuning did to the language model: one measure of the pretrained model and of a run's checkpoint.

The paper's claim is that focus tuning costs nothing elsewhere (section 4): perplexity of running text, and the tasks of
lm-evaluation-harness, show it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from fit_jax.errors import InputError
from fit_jax.evaluation.perplexity import perplexity
from fit_jax.evaluation.report import print_table
from fit_jax.evaluation.scoring import Scorer
from fit_jax.files import make_folder, write_text
from fit_jax.foreign import exists, named, read_text
from fit_jax.models.decoder import Params
from fit_jax.models.families import position_limit
from fit_jax.models.model_folder import open_pretrained
from fit_jax.parallel.processes import on_lead
from fit_jax.runs.run import Run, load_model, scorer, starting_state

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

Which = int | Literal["best", "last"]
Measures = dict[str, float]
Found = TypeVar("Found")
# What the pretrained model is called beside the checkpoint's.
BEFORE = "before tuning"


def text_of(file: Path) -> str:
    """The text that perplexity is measured of.

    Raises:
        InputError: The file is no text.
    """
    return read_text(file, "name a text file in UTF-8")


def report_perplexity(run: Run, which: Which, file: Path, text: str, folder: Path) -> dict[str, Measures]:
    """Perplexity of a text file in windows of the run's sequence length; prints it and writes `perplexity.json`.

    Args:
        run: The run.
        which: Its checkpoint.
        file: Where the text stands.
        text: It (`text_of`).
        folder: Where the report goes.

    Returns:
        The measures, by model.

    Raises:
        InputError: There is no such checkpoint, or its scores are not finite.
    """
    sequence_length = run.config.train.sequence_length

    def measure(scores: Scorer, params: Params) -> Measures:
        p = perplexity([text], run.encoder.tokenizer, scores, params, sequence_length)
        return {
            "perplexity per token": p.per_token,
            "perplexity per word": p.per_word,
            "bits per byte": p.bits_per_byte,
            "tokens": p.tokens,
        }

    found = of_both(run, which, measure)
    title = f"{file.name} in windows of {sequence_length} tokens"
    on_lead(lambda: _report(folder, "perplexity", title, {"file": str(file)}, found))
    return found


class HarnessTasks(NamedTuple):
    """Tasks of lm-evaluation-harness, their data sets included: read once, asked of both models.

    Attributes:
        names: What was asked for, names or YAML files.
        manager: Their manager.
        loaded: What it made of them.
    """

    names: tuple[str, ...]
    manager: "TaskManager"
    loaded: list[Any]


def harness_tasks(names: Sequence[str]) -> HarnessTasks:
    """The tasks of these names or YAML files.

    Raises:
        InputError: lm_eval is not installed, knows no such task or cannot read its file or data.
    """
    try:
        from lm_eval.tasks import TaskManager

        manager = TaskManager()
    except ImportError as error:
        raise InputError(f"--harness: {error}; pip install lm-eval") from error
    return HarnessTasks(tuple(names), manager, [made for name in names for made in load_task(manager, name)])


def report_harness(run: Run, which: Which, tasks: HarnessTasks, folder: Path) -> dict[str, Measures]:
    """Tasks of lm-evaluation-harness; prints their metrics and writes `harness.json`.

    Args:
        run: The run.
        which: Its checkpoint.
        tasks: The tasks.
        folder: Where the report goes.

    Returns:
        Each task's metrics, by model.

    Raises:
        InputError: There is no such checkpoint.
    """
    from lm_eval.evaluator import simple_evaluate

    from fit_jax.evaluation.harness import HarnessModel

    def measure(scores: Scorer, params: Params) -> Measures:
        asked = HarnessModel(scores, params, run.encoder.tokenizer, context_length(run))
        results = simple_evaluate(
            asked, tasks=tasks.loaded, task_manager=tasks.manager, bootstrap_iters=0, log_samples=False
        )
        assert results is not None  # it is None for a model that says to be on another rank than 0
        assert "results" in results
        return {
            f"{task}: {metric.removesuffix(',none')}": value
            for task, metrics in results["results"].items()
            for metric, value in metrics.items()
            if isinstance(value, float) and "stderr" not in metric
        }

    found = of_both(run, which, measure)
    on_lead(lambda: _report(folder, "harness", "lm-evaluation-harness", {"tasks": list(tasks.names)}, found))
    return found


def load_task(manager: "TaskManager", task: str) -> list[Any]:
    """What lm_eval's task manager makes of a name, data sets included: a task, a group, or all tasks of a tag.

    Raises:
        InputError: There is no such task, or its file or data set cannot be read.
    """
    import yaml
    from datasets.exceptions import DatasetsError

    if task not in manager.all_tasks and not (exists(Path(task)) and Path(task).is_file()):
        raise InputError(f"--harness {named(task)}: lm_eval knows no such task; see its list, or name a YAML file")
    try:
        found = manager.load([task])
    except (OSError, DatasetsError, yaml.YAMLError) as error:  # those of the connection and of the hub are OSErrors
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--harness {named(task)}: lm_eval cannot read the task or its data set; check the connection and any file "
            f"of your own, or bring along the cache (HF_HOME) of a machine that has read it ({reason})"
        ) from error
    inner = {name for names in found.get("group_map", {}).values() for name in names}
    groups = found.get("groups", {}).items()
    return [group for name, group in groups if name not in inner] or list(found.get("tasks", {}).values())


def of_both(run: Run, which: Which, measure: Callable[[Scorer, Params], Found]) -> dict[str, Found]:
    """What is found of the checkpoint's model, and of the pretrained one it was tuned from, where there is one.

    The first is let go before the second is read: a device may not hold both.
    """
    tuned = load_model(run, which)
    found = {f"step {tuned.step}": measure(scorer(run, tuned.graphdef), tuned.params)}
    del tuned
    if run.model.pretrained is not None:
        placed = starting_state(run, None)
        found[BEFORE] = measure(scorer(run, placed.graphdef), placed.state.params)
    return found


def context_length(run: Run) -> int:
    """Most tokens the model can read: what its family says, or the rows that a model from scratch has seen."""
    if run.model.pretrained is None:
        return run.config.train.sequence_length
    found = open_pretrained(run.model.pretrained)
    return position_limit(found.config.family, found.hf)


def _report(
    folder: Path, name: str, title: str, asked: Mapping[str, str | list[str]], found: Mapping[str, Measures]
) -> None:
    from rich.table import Table

    make_folder(folder)
    path = folder / f"{name}.json"
    write_text(path, json.dumps({**asked, "models": found}, indent=2) + "\n")
    models = list(found)[::-1]
    table = Table(title=title, title_justify="left")
    for column in ("measure", *models):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for measure in found[models[-1]]:
        values = (found[model][measure] for model in models)
        table.add_row(measure, *map(_shown, values))
    print_table(table)
    print(f"report: {path}", flush=True)


def _shown(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}" if value < 1e6 else f"{value:.3e}"
