"""Instructions that name several features: what is asked, and the accuracies of those seen in training and held out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fit_jax.config import Config
from fit_jax.data.focus_sampling import combinations_asked
from fit_jax.evaluation.metrics import focus_accuracy, main_set, worst_groups
from fit_jax.evaluation.queries import Group, Prediction, Query, ask_combinations
from fit_jax.focus.example import CORE, Example, TaskText
from fit_jax.focus.spec import FocusSpec
from fit_jax.tables import Code, Table, share_in

SEEN, HELD_OUT = "seen", "held out"
_JOIN = " & "


class Combined(NamedTuple):
    """The answer to a question about several features, and whether training showed instructions that name them so.

    The answer's `feature` and `value` are those of all the features that the instruction names.
    """

    answer: Prediction
    seen: bool


def combination_queries(
    text: TaskText, examples: Mapping[str, Sequence[Example]], config: Config
) -> list[tuple[Group, list[bool]]]:
    """The questions about several features, example by example, and whether training shows each question's kind.

    Args:
        text: The words of one task.
        examples: Those asked about, by split.
        config: The run; none are asked where `focus` combines nothing.
    """
    asked, everything = config.evaluation, (example for chosen in examples.values() for example in chosen)
    seen = combinations_asked(config.focus, everything)
    shown = {str(spec): is_seen for spec, is_seen in seen.items()}
    groups = [
        ask_combinations(text, split, e, seen, asked.paraphrases, config.evaluation_seed, asked.paraphrases_each)
        for split, chosen in examples.items()
        for e in (chosen if seen else ())
    ]
    return [(group, [shown[q.focus] for q in group.queries]) for group in groups if group.queries]


def combined(query: Query, answer: Prediction, seen: bool) -> Combined:
    """The record of a question about several features and its answer."""
    spec = FocusSpec.parse(query.focus)
    named = [name for name in (*spec.focus, *spec.ignore) if name != CORE]
    value = _JOIN.join(query.example.spurious[name].value for name in named)
    return Combined(replace(answer, feature=_JOIN.join(named), value=value), seen)


def combination_rows(found: Iterable[Combined], method: str, seed: int, task: str) -> list[dict[str, Any]]:
    """Rows of `combinations.jsonl`: those of `focus_accuracy.jsonl`, one per split, specification and paraphrase set.

    `focus` is the specification, `training` whether training showed it (`seen` or `held out`); `worst` is the group
    with the lowest accuracy, in which the values of the features named and y are alike.
    """
    found = list(found)
    training = {one.answer.focus: SEEN if one.seen else HELD_OUT for one in found}
    answers = [one.answer for one in found]
    worst = {(r["split"], r["focus"], r["paraphrases"]): r for r in worst_groups(answers)}
    rows = []
    for row in focus_accuracy(answers, method, seed, task):
        group = worst[row["split"], row["focus"], row["paraphrases"]]
        weakest = {name: group[name] for name in ("value", "answer", "count", "accuracy")}
        rows.append({**row, "training": training[row["focus"]], "worst": weakest})
    return rows


def combination_table(rows: Sequence[Mapping[str, Any]], main_only: bool = False) -> Table:
    """The table of `combination_rows`' rows: those held out of training last, of the main paraphrase set or of all."""
    splits = list(dict.fromkeys(r["split"] for r in rows))
    main = main_set(r["paraphrases"] for r in rows)
    cells = {(r["training"] != SEEN, r["paraphrases"] != main, r["focus"], r["paraphrases"]): {} for r in rows}
    for r in rows:
        cells[r["training"] != SEEN, r["paraphrases"] != main, r["focus"], r["paraphrases"]][r["split"]] = r
    lines = []
    for (held_out, beside, focus, paraphrases), of_split in sorted(cells.items(), key=lambda cell: cell[0][:2]):
        if main_only and beside:
            continue
        of_feature = {*FocusSpec.parse(focus).focus} - {CORE}
        shares = [share_in(r["accuracy"], r["ci_low"], r["ci_high"], r["count"]) for r in of_split.values()]
        weakest = min((r["worst"] for r in of_split.values()), key=lambda worst: worst["accuracy"])
        group = f"{weakest['accuracy']:.3f}: {weakest['value']}, {weakest['answer']} (n = {weakest['count']})"
        line = (Code(focus), HELD_OUT if held_out else SEEN, paraphrases, "y_s" if of_feature else "y", *shares, group)
        lines.append(line)
    caption = (
        "Instructions that name several spurious features: the answer follows the one in focus, or else y, whatever "
        "the others say. Some were seen in training; those held out of it are new, their words and each of their "
        "features are not. The weakest group shares the values of the features named and y, of all splits."
    )
    header = ("focus instruction", "training", "paraphrases", "right is", *splits, "weakest group")
    return Table("Combinations of features", caption, header, tuple(lines), texts=4)
