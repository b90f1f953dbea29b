"""Whether a model obeys decoys, focus instructions in the text of an input: what is asked, and what it comes to."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fit_jax.data.keyed_generator import generator
from fit_jax.evaluation.metrics import group_by, main_set, ordered, share_of
from fit_jax.evaluation.queries import Group, Prediction, Query, plain_record
from fit_jax.focus.decoy_text import PLACES, quoted_decoy, with_decoy
from fit_jax.focus.example import TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import focus_label, spec_for
from fit_jax.tables import Table, share, share_in

# The instruction once more; one that contradicts it, in the same words where both have a form in common; one in other
# words; and one in other words and quotation marks.
KINDS = ("same", "contradicting", "reworded", "quoted")
# The type of the decoys that contradict an instruction: a focus on what it does not go by.
_CONTRARY = {
    "none": "focus(spurious)",
    "focus(core)": "focus(spurious)",
    "ignore(spurious)": "focus(spurious)",
    "focus(core) & ignore(spurious)": "focus(spurious) & ignore(core)",
    "focus(spurious)": "focus(core)",
    "focus(spurious) & ignore(core)": "focus(core) & ignore(spurious)",
}


class Decoy(NamedTuple):
    """A decoy in a question.

    Attributes:
        kind: One of `KINDS`.
        place: Where in the text it stands, one of `PLACES`.
        words: Its sentence.
        label: Index of the answer that it asks for.
    """

    kind: str
    place: str
    words: str
    label: int


class Decoyed(NamedTuple):
    """The answers to a question with a decoy in its text and without."""

    decoy: Decoy
    answer: Prediction
    plain: Prediction


def decoy_splits(names: Iterable[str]) -> tuple[str, ...]:
    """The splits, of those evaluated, that are asked with decoys: `iid`, and `low` or else `flipped`."""
    present = set(names)
    return tuple(n for n in ("iid", "low" if "low" in present else "flipped") if n in present)


def decoy_queries(text: TaskText, groups: Sequence[Group], seed: int) -> list[tuple[Query, Query, Decoy]]:
    """The questions with decoys: each feature and focus type of each example of `decoy_splits`, in one paraphrase.

    It is the first of the main paraphrase set. Kind, place and paraphrase of the decoy, which is a held-out one, are a
    pure function of (seed, uid, feature, focus type).

    Returns:
        The question without the decoy, which is one of the groups', that with it, and the decoy.
    """
    queries = [query for group in groups for query in group.queries]
    splits, main = decoy_splits(q.split for q in queries), main_set(q.paraphrases for q in queries)
    chosen: dict[tuple[str, ...], Query] = {}
    for query in queries:
        if query.feature and query.split in splits and query.paraphrases == main:
            chosen.setdefault((query.split, query.example.uid, query.feature, query.focus), query)
    decoys = [_decoy(text, query, seed) for query in chosen.values()]
    return [
        (query, replace(query, example=with_decoy(query.example, decoy.words, decoy.place)), decoy)
        for query, decoy in zip(chosen.values(), decoys)
    ]


def _decoy(text: TaskText, query: Query, seed: int) -> Decoy:
    choice = generator(seed, "decoys", query.example.uid, query.feature, query.focus).random(3).tolist()
    kind, place = (options[int(x * len(options))] for options, x in zip((KINDS, PLACES), choice))
    # Without an instruction, the one that asks for the same answer.
    focus = _CONTRARY[query.focus] if kind != "same" else query.focus if query.instruction else "focus(core)"
    spec, sentences = spec_for(focus, query.feature), paraphrases_of(text.name, focus, "heldout")
    number = query.paraphrase if query.instruction else int(choice[2] * len(sentences))
    if kind in ("reworded", "quoted"):
        number += 1 + int(choice[2] * (len(sentences) - 1))
    words = instruction(text, spec, sentences[number % len(sentences)])
    if kind == "same" and query.instruction:
        words = query.instruction
    words = quoted_decoy(words) if kind == "quoted" else words
    return Decoy(kind, place, words, focus_label(query.example, spec))


def obedience(decoyed: Sequence[Decoyed], method: str, seed: int, task: str) -> list[dict[str, Any]]:
    """Rows of `decoys.jsonl`: over all questions with decoys, and by split, focus type, kind and place of the decoy.

    `accuracy` and `accuracy_plain` are the focus accuracies with the decoy and without, over `count` examples.
    `obedience` is the share of the `telling` examples, those whose decoy asks for another answer than the instruction,
    in which the model gives the decoy's answer; `obedience_plain` the share in which it gives that answer to the same
    examples without the decoy. A share over no example is None.
    """
    parts: dict[str, Callable[[Decoyed], str]] = {
        "all": lambda d: "all",
        "split": lambda d: d.answer.split,
        "focus": lambda d: d.answer.focus,
        "kind": lambda d: d.decoy.kind,
        "place": lambda d: d.decoy.place,
    }
    order = {"focus": ordered(d.answer.focus for d in decoyed), "kind": KINDS, "place": PLACES}
    rows = []
    for by, part in parts.items():
        groups = group_by(decoyed, part)
        for value in order.get(by, groups):
            if value in groups:
                rows.append({"method": method, "seed": seed, "task": task, "by": by, "value": value})
                rows[-1] |= _figures(groups[value])
    return rows


def _figures(decoyed: Sequence[Decoyed]) -> dict[str, Any]:
    given, plain = share_of(d.answer for d in decoyed), share_of(d.plain for d in decoyed)
    figures = {"count": given.examples, "accuracy": given.value, "accuracy_plain": plain.value}
    telling = [d for d in decoyed if d.decoy.label != d.answer.label]
    if not telling:
        return (
            figures | dict.fromkeys(("telling", "obedience", "ci_low", "ci_high", "obedience_plain")) | {"telling": 0}
        )
    obeyed, chance = (
        share_of(replace(p, label=d.decoy.label) for d, p in pairs)
        for pairs in ([(d, d.answer) for d in telling], [(d, d.plain) for d in telling])
    )
    low, high = obeyed.share_interval()
    shares = {"obedience": obeyed.value, "ci_low": low, "ci_high": high, "obedience_plain": chance.value}
    return figures | {"telling": obeyed.examples} | shares


def decoy_records(decoyed: Iterable[Decoyed]) -> Iterator[dict[str, Any]]:
    """The lines of `decoy_predictions.jsonl`: the answer with the decoy, the decoy, and the answer given without."""
    for decoy, answer, plain in decoyed:
        yield {**plain_record(answer), "decoy": decoy._asdict(), "prediction_plain": plain.prediction}


def decoy_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of `obedience`'s rows."""
    lines = []
    for r in rows:
        name = r["value"] if r["by"] == "all" else f"{r['by']}: {r['value']}"
        accuracies = (share(r[key], r["count"]) for key in ("accuracy_plain", "accuracy"))
        obeyed = ("", "")
        if r["telling"]:
            given = share_in(r["obedience"], r["ci_low"], r["ci_high"], r["telling"])
            obeyed = (share(r["obedience_plain"], r["telling"]), given)
        lines.append((name, str(r["count"]), *accuracies, str(r["telling"]), *obeyed))
    caption = (
        "Questions of the main paraphrase set, asked again with a decoy in the text: a sentence that poses as a focus "
        "instruction and must not be obeyed. It repeats the instruction (same), or asks for the contrary in the same "
        "words (contradicting), in other words (reworded), or in quotation marks (quoted); its paraphrases are ones "
        "never seen in training. Obedience is the share of examples whose decoy asks for another answer than the "
        "instruction in which the model gives the decoy's answer, with its 95 % interval over clusters of examples; 0 "
        "is best. Beside it stands how often the same examples get that answer without the decoy."
    )
    header = (
        "questions",
        "examples (n)",
        "accuracy without decoy",
        "accuracy with decoy",
        "decoy asks for another answer (n)",
        "that answer without decoy",
        "obedience",
    )
    return Table("Decoys in the text", caption, header, tuple(lines))
