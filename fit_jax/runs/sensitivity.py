"""One page on whether a run's model leans on a spurious feature: before tuning, where there was a model, and after.

On the examples of one test split: how often the answer changes where the feature alone does, the worst groups, how much
the wording of the instruction matters, whether instructions in the text are obeyed, and how well the model's
probabilities are calibrated.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fit_jax.errors import InputError
from fit_jax.evaluation.counterfactuals import Changes, changes, counterfactuals
from fit_jax.evaluation.decoy_evaluation import Decoyed, decoy_queries, obedience
from fit_jax.evaluation.evaluator import Subject, answer
from fit_jax.evaluation.metrics import (
    calibration_error,
    kind_of,
    main_set,
    probabilities,
    share_of,
    worst_groups,
)
from fit_jax.evaluation.paraphrase_spread import paraphrase_spreads
from fit_jax.evaluation.queries import Group, Prediction, ask
from fit_jax.evaluation.report import print_table
from fit_jax.evaluation.scoring import Scorer
from fit_jax.files import make_folder, write_text
from fit_jax.foreign import shown
from fit_jax.html import as_html, page
from fit_jax.markdown import as_text
from fit_jax.models.decoder import Params
from fit_jax.parallel.processes import on_lead
from fit_jax.runs.before_after import BEFORE, of_both
from fit_jax.runs.parts import one_task
from fit_jax.runs.run import Run
from fit_jax.tables import Table, share, share_in

KINDS = ("core", "spurious")


class Leaning(NamedTuple):
    """What one model was found to do.

    Attributes:
        changes: How often its answers change with a feature alone.
        figures: Of each kind of focus types: accuracy, worst group, worst paraphrase, confidence, calibration error.
        obeyed: Obedience to decoys; None where none was asked.
    """

    changes: list[Changes]
    figures: dict[str, dict[str, float | None]]
    obeyed: dict[str, Any] | None


def check_sensitivity(run: Run, split: str) -> None:
    """Refuses a split that the run's task does not have or that holds nothing, and a run of several tasks.

    Raises:
        InputError: It has none of this name, or there are several tasks.
    """
    one_task(run, None, "measure the sensitivity of the run of one")
    if split not in run.task.test_splits or not run.task.splits[split].examples[:1]:
        raise InputError(
            f"--sensitivity {shown(split)}: the task has no such test split with examples; it has "
            f"{', '.join(run.task.test_splits)}"
        )


def report_sensitivity(run: Run, which: int | Literal["best", "last"], split: str, folder: Path) -> dict[str, Leaning]:
    """Measures a checkpoint's model, and the one it was tuned from; prints the answer and writes the page.

    Args:
        run: The run.
        which: The checkpoint.
        split: The test split (`check_sensitivity`).
        folder: Where the report goes.

    Returns:
        What was found, by model.

    Raises:
        InputError: There is no such checkpoint, or scores are not finite.
    """
    found = of_both(run, which, partial(_measured, run, split))
    found = dict(sorted(found.items(), key=lambda item: item[0] != BEFORE))
    on_lead(lambda: _write(folder, run, split, found))
    return found


def _measured(run: Run, split: str, scorer: Scorer, params: Params) -> Leaning:
    asked, seed, text = run.config.evaluation, run.config.evaluation_seed, run.task.text
    examples = run.task.splits[split].examples[: asked.examples]
    groups = [ask(text, split, e, (main_set(asked.paraphrases),), seed, asked.paraphrases_each) for e in examples]
    others = counterfactuals(groups, examples, seed)
    decoys = decoy_queries(text, groups, seed)
    more = [Group.of([one.other]) for one in others] + [Group.of([query]) for _, query, _ in decoys]
    subject = Subject(run.encoder, scorer, params)
    answers = list(answer([*groups, *more], subject))
    queries = [query for group in groups for query in group.queries]
    given = [p for answers_of in answers[: len(groups)] for p in answers_of]
    by_query = {id(query): prediction for query, prediction in zip(queries, given)}
    rest = [p for answers_of in answers[len(groups) :] for p in answers_of]
    decoyed = [
        Decoyed(decoy, prediction, by_query[id(plain)])
        for (plain, _, decoy), prediction in zip(decoys, rest[len(others) :])
    ]
    rows = obedience(decoyed, run.config.train.method, run.config.seed, text.name) if decoyed else []
    figures = {kind: _figures([p for p in given if kind_of(p.focus) == kind]) for kind in KINDS}
    return Leaning(changes(others, by_query, rest[: len(others)]), figures, rows[0] if rows else None)


def _figures(given: Sequence[Prediction]) -> dict[str, float | None]:
    if not given:
        return {}
    spreads = paraphrase_spreads(given).values()
    return {
        "accuracy": share_of(given).value,
        "worst group": min(row["accuracy"] for row in worst_groups(given)),
        "worst paraphrase": min((s.accuracy[s.worst].value for s in spreads), default=None),
        "confidence": sum(probabilities(p.log_probs).max() for p in given) / len(given),
        "calibration error": calibration_error(given),
    }


def verdict(found: Mapping[str, Leaning], titles: Mapping[str, str]) -> str:
    """The answer in words: how often the last model's answers change with each feature alone."""
    *earlier, last = found.values()
    rows = {(c.feature, c.focus): c for c in last.changes}
    before = {(c.feature, c.focus): c for c in earlier[0].changes} if earlier else {}

    def told(feature: str, focus: str) -> str:
        was = f" ({before[feature, focus].changed.value:.3f} {BEFORE})" if before else ""
        return f"{rows[feature, focus].changed.value:.3f} of the texts{was}"

    sentences = [
        f"Exchanging {titles.get(feature, feature)} alone changes the answer in {told(feature, 'none')} without an "
        f"instruction, in {told(feature, 'ignore(spurious)')} where it is to be ignored, and in "
        f"{told(feature, 'focus(spurious)')} where it is to be gone by, where "
        f"{rows[feature, 'focus(spurious)'].ought:.3f} should."
        for feature in dict.fromkeys(c.feature for c in last.changes)
    ]
    return " ".join(sentences) or (
        "No spurious feature has values that stand in the texts and mean one label each: none could be exchanged."
    )


def tables(found: Mapping[str, Leaning], split: str) -> list[Table]:
    """The tables of the page."""
    names = list(found)
    cells: dict[tuple[str, str], dict[str, Changes]] = {}
    for name, leaning in found.items():
        for change in leaning.changes:
            cells.setdefault((change.feature, change.focus), {})[name] = change
    rows = []
    for (feature, focus), of in cells.items():
        first = of[names[0]]
        shares = [share_in(c.changed.value, *c.changed.share_interval(), c.changed.examples) for c in of.values()]
        rows.append((feature, focus, str(first.changed.examples), share(first.ought), *shares))
    caption = (
        f"Texts of {split} in which the feature's value is exchanged for one of another label, and nothing else. Ought "
        "to is the share whose focus label changes: of an answer that goes by the task, none. With 95 % intervals over "
        "clusters of examples."
    )
    header = ("feature", "focus type", "texts (n)", "ought to", *names)
    by_feature = Table("Answers that change with the feature alone", caption, header, rows, "changes", texts=2)
    rows = []
    for kind in KINDS:
        for measure in found[names[0]].figures[kind]:
            rows.append((f"{kind} types", measure, *(share(found[name].figures[kind][measure]) for name in names)))
    obeyed = [leaning.obeyed["obedience"] for leaning in found.values() if leaning.obeyed]
    if len(obeyed) == len(names) and None not in obeyed:
        rows.append(("all types", "obedience to decoys", *map(share, obeyed)))
    caption = (
        "Focus accuracy, and that of the worst group of value and answer and of the worst paraphrase; the mean "
        "probability of the answer given, and how far that is from being right so often (expected calibration error); "
        "how often a focus instruction that stands in the text is obeyed."
    )
    title = "Groups, wording, calibration and decoys"
    return [by_feature, Table(title, caption, ("asked", "measure", *names), rows, "figures", texts=2)]


def _write(folder: Path, run: Run, split: str, found: Mapping[str, Leaning]) -> None:
    make_folder(folder)
    words, shown_tables = verdict(found, run.task.text.spurious), tables(found, split)
    records = {name: _record(leaning) for name, leaning in found.items()}
    write_text(folder / "sensitivity.json", json.dumps({"split": split, "models": records}, indent=2) + "\n")
    title = f"Does the model lean on it? {run.config.train.method} on {run.task.text.name}, seed {run.config.seed}"
    body = "\n\n".join(table.markdown() for table in shown_tables)
    write_text(folder / "summary.md", f"# {as_text(title)}\n\n{as_text(words)}\n\n{body}\n")
    html = f'<section class="card"><p class="verdict">{as_html(words)}</p></section>\n'
    html += "".join(table.html() for table in shown_tables)
    write_text(folder / "index.html", page(title, "What changes with a spurious feature alone.", html))
    for table in shown_tables:
        print_table(table.terminal())
    print(words)
    print(f"report: {folder / 'index.html'}", flush=True)


def _record(leaning: Leaning) -> dict[str, Any]:
    """What was found of a model, for `sensitivity.json`."""
    changed = [
        {"feature": feature, "focus": focus, "ought": ought, "changed": mean.value, "count": mean.examples}
        | dict(zip(("ci_low", "ci_high"), mean.share_interval()))
        for feature, focus, ought, mean in leaning.changes
    ]
    return {"changes": changed, "decoys": leaning.obeyed} | {f"{kind} types": leaning.figures[kind] for kind in KINDS}
