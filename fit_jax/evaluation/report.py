"""The `report/` folder of a run: rows, predictions, tables, pictures and the page; each file whole or not at all."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation import result_tables
from fit_jax.evaluation.combinations import combination_rows, combination_table
from fit_jax.evaluation.decoy_evaluation import decoy_records, decoy_table, obedience
from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.evaluation.examples import choose_examples
from fit_jax.evaluation.metrics import Accuracy, focus_accuracy, is_shifted, pooled
from fit_jax.evaluation.opening import answers_to, choose_opening, opening_html
from fit_jax.evaluation.queries import Prediction, plain_record
from fit_jax.evaluation.radar import Panel, draw_radars, radar_figures
from fit_jax.evaluation.reference_lines import without_repeats
from fit_jax.evaluation.result_summary import summary
from fit_jax.evaluation.text_perplexity import PerplexityRecord, perplexity_table
from fit_jax.evaluation.turn_evaluation import persistence, turn_records, turn_table
from fit_jax.evaluation.verdict import run_verdict
from fit_jax.files import make_folder, replace_with, write_text
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.foreign import named, read_records, shown
from fit_jax.html import Words, page
from fit_jax.parallel.processes import is_lead
from fit_jax.tables import Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

FOLDER = "report"
# Seconds between two lines of a log that say how far an evaluation is.
_EVERY = 15.0
_DECOYS, _DECOY_PREDICTIONS = "decoys.jsonl", "decoy_predictions.jsonl"
_TURNS, _TURN_PREDICTIONS = "turns.jsonl", "turn_predictions.jsonl"
PERPLEXITY = "perplexity.jsonl"
_COMBINATIONS, _COMBINATION_PREDICTIONS = "combinations.jsonl", "combination_predictions.jsonl"


class Before(NamedTuple):
    """What the model that a run was tuned from says; empty where it is not known.

    Attributes:
        answers: To the questions of the page's opening.
        perplexities: Of the measured texts.
        random: Whether its weights were random: the run was trained from scratch.
    """

    answers: Sequence[Prediction] = ()
    perplexities: Sequence[float] = ()
    random: bool = False


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the lead's terminal, a line now and then in its log; other processes are silent.

    Yields what is to be called with examples done and in all.
    """
    if not is_lead():
        yield lambda done, total: None
        return
    if not sys.stdout.isatty():
        yield _Lines(what)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("examples"), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Lines of a log: the first says that work has begun, and how much; others follow at most every so often."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._due = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._due and done < total:
            print(f"{self._what}: {done:,} of {total:,} examples", flush=True)
            self._due = now + _EVERY


def print_table(table: "RichTable") -> None:
    """Prints a `rich` table, as wide as it needs where output is no terminal."""
    from fit_jax.terminal import Terminal

    Terminal(width=None if sys.stdout.isatty() else 160).print(table)


def write_report(
    folder: Path,
    evaluation: Evaluation,
    task: Task,
    encoder: PromptEncoder,
    method: str,
    seed: int,
    before: Before = Before(),  # noqa: B008
    measured: Sequence[PerplexityRecord] = (),
) -> list[dict[str, Any]]:
    """Writes `report/` of one run.

    Args:
        folder: The report's folder; files of an earlier report in it are replaced.
        evaluation: What was asked and answered.
        task: The task asked about.
        encoder: Renders the prompts that the page shows.
        method: The run's method, as named in the rows.
        seed: The run's seed.
        before: What the model before tuning answered to the questions of the page's opening, where that is known.
        measured: What tuning did to other texts, as `perplexity_records` gives it.

    Returns:
        The rows of `focus_accuracy.jsonl`.
    """
    predictions = evaluation.predictions
    title = f"Focus report: {method} on {task.text.name}, seed {seed}"
    rows = focus_accuracy(predictions, method, seed, task.text.name)
    make_folder(folder)
    (folder / "index.html").unlink(missing_ok=True)  # written last: a folder that has it is whole
    write_lines(folder / "focus_accuracy.jsonl", rows)
    write_predictions(folder / "predictions.jsonl", predictions)
    verdict = run_verdict(predictions)
    tables = result_tables.result_tables(predictions, task)
    apart = (_DECOYS, _DECOY_PREDICTIONS, _TURNS, _TURN_PREDICTIONS, _COMBINATIONS, _COMBINATION_PREDICTIONS)
    for name in (*apart, PERPLEXITY):
        (folder / name).unlink(missing_ok=True)  # perhaps of an earlier report
    if evaluation.combined:
        several = combination_rows(evaluation.combined, method, seed, task.text.name)
        write_lines(folder / _COMBINATIONS, several)
        write_predictions(folder / _COMBINATION_PREDICTIONS, (one.answer for one in evaluation.combined))
        tables.insert(1, combination_table(several))
    if evaluation.decoyed:
        found = obedience(evaluation.decoyed, method, seed, task.text.name)
        write_lines(folder / _DECOYS, found)
        write_lines(folder / _DECOY_PREDICTIONS, decoy_records(evaluation.decoyed))
        tables.append(decoy_table(found))
    if evaluation.turned:
        found = persistence(evaluation.turned, method, seed, task.text.name)
        write_lines(folder / _TURNS, found)
        write_lines(folder / _TURN_PREDICTIONS, turn_records(evaluation.turned))
        tables.append(turn_table(found))
    if measured:
        write_lines(folder / PERPLEXITY, measured)
        tables.append(perplexity_table(measured))
    write_text(folder / "summary.md", summary(title, predictions, task, tables))
    panels, columns = radar_panels(predictions)
    for suffix in ("svg", "png"):
        replace_with(folder / f"radar.{suffix}", partial(draw_radars, panels, columns, kind=suffix))
    examples, cap = choose_examples(evaluation.queries, predictions, lambda q: encoder.render(q.example, q.instruction))
    opening = choose_opening(evaluation.queries, task.text)
    answers = {"after tuning" if before.answers else "answer": answers_to(opening, evaluation)}
    if before.answers:
        answers = {"before tuning": before.answers, **answers}
    opened = opening_html(opening, answers, before.random)
    body = page_body(opened, verdict, panels, tables)
    subtitle = f"{len(predictions):,} answers; 95 % Wilson intervals over clusters of examples in brackets."
    write_text(folder / "index.html", page(title, subtitle, body, examples, cap))
    return rows


def page_body(
    opening: str, verdict: str, panels: Sequence[Panel | None], tables: Sequence[Table], figures: str = ""
) -> str:
    """A report's page below its title, as markup: the opening, the verdict, the main table, figures, other tables."""
    said = Words().explained(verdict, prose=True)
    return "".join(
        [
            opening,
            '<section class="card" aria-labelledby="verdict"><h2 id="verdict">What the numbers say</h2>',
            f'<p class="verdict">{said}</p></section>\n',
            tables[0].html(),
            figures,
            radar_figures(panels),
            *(table.html() for table in tables[1:]),
        ]
    )


def radar_panels(predictions: Sequence[Prediction]) -> tuple[list[Panel], int]:
    """One radar for each paraphrase set and kind of split (standard, shifted), and the columns of their grid.

    A split that repeats another is not shown.
    """
    cells = pooled(without_repeats(predictions))
    paraphrase_sets = list(dict.fromkeys(key[0] for key in cells))
    panels = []
    for shifted in (False, True):
        for paraphrases in paraphrase_sets:
            kept = {key: c for key, c in cells.items() if key[0] == paraphrases and is_shifted(key[1]) == shifted}
            if kept:
                kind = "values unseen in training\n" if shifted else ""
                panels.append(_panel(kind + result_tables.PARAPHRASE_NAMES[paraphrases], kept))
    return panels, len(paraphrase_sets)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Writes a `predictions.jsonl`; log-probabilities of -inf are null there."""
    write_lines(path, map(plain_record, predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions of a `predictions.jsonl`.

    Raises:
        InputError: The file is missing or damaged.
    """
    remedy = "move it away, and they are made again"
    records = read_records(path, remedy)
    try:
        return [
            Prediction(**{**r, "log_probs": tuple(-inf if p is None else p for p in r["log_probs"])}) for r in records
        ]
    except (TypeError, KeyError) as error:
        raise InputError(f"{named(path)}: holds no predictions ({shown(str(error))}); {remedy}") from error


def write_lines(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Writes JSON lines."""
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def _panel(title: str, cells: Mapping[tuple[str, str, str], Accuracy]) -> Panel:
    lines: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for (_, split, focus), cell in cells.items():
        lines.setdefault(split, {})[focus] = cell.accuracy
        intervals.setdefault(split, {})[focus] = (cell.ci_low, cell.ci_high)
    return Panel(title, lines, intervals)
