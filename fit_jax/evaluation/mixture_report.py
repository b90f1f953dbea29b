"""The report over the tasks of a mixture: each task in a line, their macro average, and those never trained on apart.

The macro average is the mean of the tasks' focus accuracies, each task counting once however many examples it has. Its
interval comes from those of the tasks, whose examples are independent of each other: with l_i the lower end of the i-th
task's interval around a_i, the mean of k tasks has the lower end mean(a) - sqrt(sum (a_i - l_i)^2) / k (Zou and Donner,
2008, "Construction of confidence intervals about effect measures"); the upper end likewise.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from fit_jax.data.task import Task
from fit_jax.evaluation.metrics import Accuracy, focus_accuracy, main_set, ordered, pooled
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import reference_lines
from fit_jax.evaluation.report import PERPLEXITY, write_lines
from fit_jax.evaluation.result_tables import PARAPHRASE_NAMES, focus_table
from fit_jax.evaluation.text_perplexity import PerplexityRecord, perplexity_table
from fit_jax.evaluation.verdict import following
from fit_jax.files import write_text
from fit_jax.html import page
from fit_jax.markdown import as_code, as_text
from fit_jax.tables import Code, Table, share, share_in

# Holds the reports of the tasks of a mixture, by name.
TASKS = "tasks"
TRAINED, HELD_OUT = "trained", "held out"
_ABOUT = {TRAINED: "Macro average over the tasks trained on", HELD_OUT: "Macro average over tasks never trained on"}
_INTERVALS = "95 % intervals in brackets."
# Of a mixture every task answers by itself, and so do the answers.
Answers = Mapping[str, Sequence[Prediction]]


def macro(cells: Sequence[Accuracy]) -> Accuracy:
    """The mean of the accuracies of several tasks, with its interval; its count is that of the smallest."""
    mean = sum(c.accuracy for c in cells) / len(cells)
    low, high = (
        sqrt(sum((c.accuracy - end) ** 2 for c, end in zip(cells, ends))) / len(cells)
        for ends in ([c.ci_low for c in cells], [c.ci_high for c in cells])
    )
    return Accuracy(mean, max(mean - low, 0.0), min(mean + high, 1.0), min(c.count for c in cells))


def macro_cells(predictions: Answers, task: Task) -> dict[str, dict[tuple[str, str, str], Accuracy]]:
    """Macro averages of the tasks trained on and of those held out, by (paraphrases, split, focus type).

    Only what all tasks of the kind were asked has one.
    """
    found = {}
    for kind in (TRAINED, HELD_OUT):
        cells = [pooled(given) for name, given in predictions.items() if bool(task.weights[name]) == (kind == TRAINED)]
        if cells:
            common = [key for key in cells[0] if all(key in others for others in cells[1:])]
            found[kind] = {key: macro([of_task[key] for of_task in cells]) for key in common}
    return found


def macro_rows(predictions: Answers, task: Task, method: str, seed: int) -> list[dict[str, Any]]:
    """Rows of `macro.jsonl`: a macro average each, with the names of its tasks."""
    rows = []
    for kind, cells in macro_cells(predictions, task).items():
        tasks = [name for name in predictions if bool(task.weights[name]) == (kind == TRAINED)]
        for (paraphrases, split, focus), cell in cells.items():
            keys = {"method": method, "seed": seed, "tasks": tasks, "kind": kind}
            keys |= {"split": split, "focus": focus, "paraphrases": paraphrases}
            rows.append(keys | {"accuracy": cell.accuracy, "ci_low": cell.ci_low, "ci_high": cell.ci_high})
    return rows


def mixture_tables(predictions: Answers, task: Task) -> list[Table]:
    """The table by task, then macro averages of each paraphrase set, the main one first."""
    tables = [_task_table(predictions, task)]
    for kind, cells in macro_cells(predictions, task).items():
        sets = list(dict.fromkeys(key[0] for key in cells))
        for paraphrases in sorted(sets, key=lambda at: at != main_set(sets)):
            of_tasks = [
                reference_lines(p for p in given if p.paraphrases == paraphrases)
                for name, given in predictions.items()
                if bool(task.weights[name]) == (kind == TRAINED)
            ]
            tables.append(_macro_table(kind, paraphrases, cells, of_tasks))
    return tables


def focus_tables(predictions: Answers) -> tuple[list[str], list[list[Any]]]:
    """`result_tables.focus_table` of one task; of several one below the other, each row beginning with its task."""
    found = {name: focus_table(given) for name, given in predictions.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    splits = list(dict.fromkeys(split for header, _ in found.values() for split in header[1:]))
    rows = []
    for name, (header, own) in found.items():
        for focus, *shares in own:
            at = dict(zip(header[1:], shares))
            rows.append([name, focus, *(at.get(split) for split in splits)])
    return ["task", "focus instruction", *splits], rows


def mixture_summary(title: str, task: Task, tables: Sequence[Table]) -> str:
    """`summary.md` of a mixture."""
    links = [f"- {as_code(name)}: [its report]({TASKS}/{name}/summary.md)" for name in task.parts]
    notes = [f"- {as_text(note)}" for note in task.notes]
    parts = [f"# {as_text(title)}", *(table.markdown() for table in tables), "\n".join(links), "\n".join(notes)]
    return "\n\n".join(parts) + "\n"


def write_mixture_report(
    folder: Path,
    predictions: Mapping[str, Sequence[Prediction]],
    task: Task,
    method: str,
    seed: int,
    measured: Sequence[PerplexityRecord] = (),
) -> Table:
    """Writes what `report/` of a mixture holds beside the reports of its tasks, which are there.

    Args:
        folder: The report's folder.
        predictions: The answers by task.
        task: The mixture.
        method: The run's method, as named in the rows.
        seed: The run's seed.
        measured: What tuning did to other texts, as `perplexity_records` gives it.

    Returns:
        The table by task.
    """
    title = f"Focus report: {method} on {task.text.name}, seed {seed}"
    rows = [row for name, given in predictions.items() for row in focus_accuracy(given, method, seed, name)]
    write_lines(folder / "focus_accuracy.jsonl", rows)
    write_lines(folder / "macro.jsonl", macro_rows(predictions, task, method, seed))
    tables = mixture_tables(predictions, task)
    (folder / PERPLEXITY).unlink(missing_ok=True)  # perhaps of an earlier report
    if measured:
        write_lines(folder / PERPLEXITY, measured)
        tables.append(perplexity_table(measured))
    write_text(folder / "summary.md", mixture_summary(title, task, tables))
    links = "".join(f'<li><a href="{TASKS}/{name}/index.html">{name}</a></li>' for name in predictions)
    body = f'<section class="card"><h2>Reports of the tasks</h2><ul>{links}</ul></section>\n'
    body = tables[0].html() + body + "".join(table.html() for table in tables[1:])
    asked = sum(map(len, predictions.values()))
    write_text(folder / "index.html", page(title, f"{asked:,} answers; {_INTERVALS}", body))
    return tables[0]


def _task_table(predictions: Answers, task: Task) -> Table:
    whole = sum(task.weights.values())
    rows = []
    for name, given in predictions.items():
        weight, found = task.weights[name], following(given)
        trained = f"{weight / whole:.1%} of the examples" if weight else "never"
        if found is None:
            rows.append((name, trained, "was not asked for y_s where y differs", "", "", "", ""))
            continue
        shares = (share_in(m.value, *m.share_interval(), m.examples) for m in (found.core, found.spurious))
        rows.append((name, trained, found.judgement, *shares, f"{found.chance:.3f}", str(found.examples)))
    caption = (
        "Each task by itself, on texts whose y and y_s differ: how often the answer is y where the instruction asks "
        "for y, and y_s where it asks for y_s, over all splits of values seen in training and the main paraphrase "
        "set. Answers that do not depend on the instruction add up to at most 1 over the two. A task that was never "
        "trained on shows whether focus instructions carry over."
    )
    header = ("task", "trained on", "the model", "y asked for", "y_s asked for", "by chance", "examples (n)")
    return Table("By task", caption, header, tuple(rows), texts=3)


def _macro_table(
    kind: str,
    paraphrases: str,
    cells: Mapping[tuple[str, str, str], Accuracy],
    of_tasks: Sequence[Mapping[str, Mapping[str, float]]],
) -> Table:
    splits = list(dict.fromkeys(split for asked, split, _ in cells if asked == paraphrases))
    rows = []
    for focus in ordered(key[2] for key in cells):
        found = [cells.get((paraphrases, split, focus)) for split in splits]
        shown = (share(None) if c is None else share_in(c.accuracy, c.ci_low, c.ci_high, c.count) for c in found)
        rows.append((Code(focus), *shown))
    for line in (line for line in of_tasks[0] if all(line in lines for lines in of_tasks)):
        known = [[lines[line][split] for lines in of_tasks if split in lines[line]] for split in splits]
        means = (sum(rates) / len(rates) if len(rates) == len(of_tasks) else None for rates in known)
        rows.append((line, *map(share, means)))
    caption = (
        "Mean of the tasks' focus accuracies, each task counting once, with 95 % intervals from those of the tasks; of "
        "splits and focus types that all of them were asked. The last rows are the means of what answers without "
        "reading reach on each task."
    )
    title = f"{_ABOUT[kind]}, {PARAPHRASE_NAMES[paraphrases]}"
    return Table(title, caption, ("focus instruction", *splits), tuple(rows))
