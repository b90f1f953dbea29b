"""The report of a run: its model is asked, then the one it was tuned from, and the report written and printed."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.evaluation.combinations import combination_rows, combination_table
from fit_jax.evaluation.evaluator import Evaluation, Subject, evaluate
from fit_jax.evaluation.mixture_report import TASKS, write_mixture_report
from fit_jax.evaluation.opening import Opening, choose_opening
from fit_jax.evaluation.report import Before, print_table, progress_bar, write_report
from fit_jax.evaluation.result_tables import terminal_table
from fit_jax.evaluation.text_perplexity import (
    MeasuredTexts,
    perplexity_records,
    perplexity_table,
    text_perplexities,
)
from fit_jax.files import make_folder
from fit_jax.parallel.processes import on_lead


def nothing_before(openings: Sequence[Opening], texts: Sequence[MeasuredTexts]) -> list[Before]:
    """Where nothing is known of the model before tuning."""
    return [Before() for _ in openings]


def report_run(
    folder: Path,
    task: Task,
    load: Callable[[], Subject],
    config: Config,
    before: Callable[[Sequence[Opening], Sequence[MeasuredTexts]], Sequence[Before]] = nothing_before,
    texts: Sequence[MeasuredTexts] = (),
) -> dict[str, Evaluation]:
    """Evaluates a run's model, writes its report and prints the main table.

    Every process takes part in scoring; the lead writes and prints. A mixture gets a report of each of its tasks in
    `tasks/NAME`, and one over all of them.

    Args:
        folder: The report's folder.
        task: The task asked about; of a mixture, each of its tasks.
        load: Gives the model, which is let go once it was asked.
        config: The run.
        before: Asks the model that the run's was tuned from about the opening of each task.
        texts: What both models' perplexity is measured of.

    Returns:
        What was asked and answered, by task.

    Raises:
        InputError: As `load` and `evaluate`, or the folder cannot be written to.
    """
    subject = load()
    encoder = subject.encoder
    on_lead(partial(make_folder, folder))  # before minutes of scoring, not after
    evaluations: dict[str, Evaluation] = {}
    for name, part in task.each.items():
        with progress_bar(f"evaluating {name}" if task.parts else "evaluating") as on_progress:
            evaluations[name] = evaluate(part, subject, config, on_progress)
    after = text_perplexities(texts, subject.scorer, subject.params)
    del subject  # a device may not hold two models
    openings = [choose_opening(evaluations[name].queries, part.text) for name, part in task.each.items()]
    earlier = before(openings, texts)
    measured = perplexity_records(texts, after, earlier[0].perplexities)

    def publish() -> None:
        method, seed = config.train.method, config.seed
        if not task.parts:
            write_report(folder, evaluations[task.text.name], task, encoder, method, seed, earlier[0], measured)
        if measured:
            print_table(perplexity_table(measured).terminal())
        if task.parts:  # the page over all tasks is written last: a folder that has it is whole
            (folder / "index.html").unlink(missing_ok=True)
        for (name, part), said in zip(task.each.items(), earlier):
            predictions = evaluations[name].predictions
            if task.parts:
                place = folder / TASKS / name
                write_report(place, evaluations[name], part, encoder, method, seed, said)
            print_table(terminal_table(f"{method} on {name}", predictions).terminal())
            if several := combination_rows(evaluations[name].combined, method, seed, name):
                print_table(combination_table(several, main_only=True).terminal())
        if task.parts:
            predictions = {name: evaluation.predictions for name, evaluation in evaluations.items()}
            print_table(write_mixture_report(folder, predictions, task, method, seed, measured).terminal())
        print(f"report: {folder / 'index.html'}", flush=True)

    on_lead(publish)
    return evaluations
