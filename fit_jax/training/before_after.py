"""What tuning did to the language model: one measure of the pretrained model and of a run's checkpoint.

The paper's claim is that focus tuning costs nothing elsewhere (section 4): perplexity of running text, and the tasks of
lm-evaluation-harness, show it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fit_jax.errors import InputError
from fit_jax.evaluation.perplexity import perplexity
from fit_jax.evaluation.report import FOLDER, print_table
from fit_jax.evaluation.scoring import Scorer
from fit_jax.files import make_folder, write_text
from fit_jax.models.weights import open_pretrained
from fit_jax.parallel.processes import is_lead
from fit_jax.training.run import Run, load_model, scorer, starting_state

Which = int | Literal["best", "last"]


def report_perplexity(run: Run, which: Which, file: Path) -> dict[str, dict[str, Any]]:
    """Perplexity of a text file in windows of the run's row length; prints it and writes `report/perplexity.json`.

    Returns:
        The measures, by model.

    Raises:
        InputError: The file is no text, there is no such checkpoint, or its scores are not finite.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--perplexity {file}: {error}; name a text file in UTF-8") from error
    length = run.config.train.sequence_length
    found = {}
    for name, scores, params in _models(run, which):
        p = perplexity([text], run.encoder.tokenizer, scores, params, length)
        found[name] = {
            "perplexity per token": p.per_token,
            "perplexity per word": p.per_word,
            "bits per byte": p.bits_per_byte,
            "tokens": p.tokens,
        }
    _report(run, "perplexity", f"{file.name} in windows of {length} tokens", {"file": str(file)}, found)
    return found


def report_harness(run: Run, which: Which, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Tasks of lm-evaluation-harness, by name or YAML file; prints them and writes `report/harness.json`.

    Returns:
        Each task's metrics, by model.

    Raises:
        InputError: lm_eval is not installed or knows no such task, or there is no such checkpoint.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager

        from fit_jax.evaluation.harness import HarnessModel
    except ImportError as error:
        raise InputError(f"--harness: {error}; pip install lm-eval") from error
    manager = TaskManager()
    for task in tasks:
        if task not in manager.all_tasks and not Path(task).is_file():
            raise InputError(f"--harness {task}: lm_eval knows no such task; see its list, or name a YAML file")
    found = {}
    for name, scores, params in _models(run, which):
        asked = HarnessModel(scores, params, run.encoder.tokenizer, _context(run))
        results = lm_eval.simple_evaluate(
            asked, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, log_samples=False
        )["results"]
        found[name] = {
            f"{task}: {metric.removesuffix(',none')}": value
            for task, metrics in results.items()
            for metric, value in metrics.items()
            if isinstance(value, float) and "stderr" not in metric
        }
    _report(run, "harness", "lm-evaluation-harness", {"tasks": list(tasks)}, found)
    return found


def _models(run: Run, which: Which) -> Iterable[tuple[str, Scorer, Any]]:
    """The checkpoint's model, and then the pretrained one it was tuned from, where there is one."""
    tuned = load_model(run, which)
    yield f"step {tuned.step}", scorer(run, tuned.graphdef), tuned.params
    if run.model.pretrained is not None:
        placed = starting_state(run, None)
        yield "before tuning", scorer(run, placed.graphdef), placed.state.params


def _context(run: Run) -> int:
    """Most tokens the model can read: what its family says, or the rows that a model from scratch has seen."""
    if run.model.pretrained is None:
        return run.config.train.sequence_length
    return open_pretrained(run.model.pretrained).hf["max_position_embeddings"]


def _report(run: Run, name: str, title: str, asked: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> None:
    if not is_lead():
        return
    from rich.table import Table

    make_folder(run.folder / FOLDER)
    path = run.folder / FOLDER / f"{name}.json"
    write_text(path, json.dumps({**asked, "models": found}, indent=2) + "\n")
    models = list(reversed(found))
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
