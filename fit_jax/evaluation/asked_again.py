"""Questions asked once more with something that pulls at the answer: which they are, and what it comes to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from fit_jax.evaluation.metrics import group_by, main_set, share_of
from fit_jax.evaluation.queries import Group, Prediction, Query
from fit_jax.tables import share, share_in


class AskedAgain(Protocol):
    """The answers to a question with what pulls at it, and without."""

    @property
    def answer(self) -> Prediction:
        """The answer with it."""
        ...

    @property
    def plain(self) -> Prediction:
        """The answer without."""
        ...


Pair = TypeVar("Pair", bound=AskedAgain)


def splits_asked_again(names: Iterable[str]) -> tuple[str, ...]:
    """The splits, of those evaluated, whose questions are asked again: `iid`, and `low` or else `flipped`."""
    present = set(names)
    return tuple(n for n in ("iid", "low" if "low" in present else "flipped") if n in present)


def asked_once(groups: Sequence[Group]) -> list[Query]:
    """Each feature and focus type of each example of `splits_asked_again`, in one paraphrase.

    It is the first of the main paraphrase set.
    """
    queries = [query for group in groups for query in group.queries]
    splits, main = splits_asked_again(q.split for q in queries), main_set(q.paraphrases for q in queries)
    chosen: dict[tuple[str, ...], Query] = {}
    for query in queries:
        if query.feature and query.split in splits and query.paraphrases == main:
            chosen.setdefault((query.split, query.example.uid, query.feature, query.focus), query)
    return list(chosen.values())


def pulled_by(
    pairs: Sequence[Pair],
    parts: Mapping[str, Callable[[Pair], str]],
    order: Mapping[str, Sequence[str]],
    asks_for: Callable[[Pair], int],
    rate: str,
) -> list[dict[str, Any]]:
    """How far answers were pulled, a row for each value of each way of dividing the questions.

    `accuracy` and `accuracy_plain` are the focus accuracies with what pulls and without, over `count` examples. The
    rate is the share of the `telling` examples, those in which it asks for another answer than the instruction, whose
    answer is that one; `RATE_plain` the share in which the same examples get that answer without it. A share over no
    example is None.

    Args:
        pairs: The answers.
        parts: The ways of dividing them, by name.
        order: In which values of some of them come; by default as they are met.
        asks_for: Index of the answer that is pulled to.
        rate: Name of the rate.
    """
    rows = []
    for by, part in parts.items():
        groups = group_by(pairs, part)
        for value in order.get(by, groups):
            if value in groups:
                rows.append({"by": by, "value": value} | _figures(groups[value], asks_for, rate))
    return rows


def _figures(pairs: Sequence[Pair], asks_for: Callable[[Pair], int], rate: str) -> dict[str, Any]:
    given, plain = share_of(p.answer for p in pairs), share_of(p.plain for p in pairs)
    figures = {"count": given.examples, "accuracy": given.value, "accuracy_plain": plain.value}
    telling = [p for p in pairs if asks_for(p) != p.answer.label]
    if not telling:
        return figures | dict.fromkeys(("telling", rate, "ci_low", "ci_high", f"{rate}_plain")) | {"telling": 0}
    followed, chance = (
        share_of(replace(answer, label=asks_for(p)) for p, answer in answers)
        for answers in ([(p, p.answer) for p in telling], [(p, p.plain) for p in telling])
    )
    low, high = followed.share_interval()
    shares = {rate: followed.value, "ci_low": low, "ci_high": high, f"{rate}_plain": chance.value}
    return figures | {"telling": followed.examples} | shares


def pulled_cells(row: Mapping[str, Any], rate: str) -> tuple[str, ...]:
    """The cells of a row of `pulled_by` in a report's table."""
    name = row["value"] if row["by"] == "all" else f"{row['by']}: {row['value']}"
    accuracies = (share(row[key], row["count"]) for key in ("accuracy_plain", "accuracy"))
    followed = ("", "")
    if row["telling"]:
        given = share_in(row[rate], row["ci_low"], row["ci_high"], row["telling"])
        followed = (share(row[f"{rate}_plain"], row["telling"]), given)
    return (name, str(row["count"]), *accuracies, str(row["telling"]), *followed)
