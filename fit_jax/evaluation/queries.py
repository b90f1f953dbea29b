"""Which prompts an evaluation asks: every focus type of every feature of an example, in wordings fixed by the seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fit_jax.data.random import generator
from fit_jax.focus.example import Example, TaskText
from fit_jax.focus.instructions import instruction, wordings
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, focus_label, spec_for


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the model: an example under one focus instruction.

    Attributes:
        split: Name of the split the example belongs to.
        focus: Focus type, one of `FOCUS_TYPES`.
        feature: The spurious feature the type speaks of.
        paraphrases: Wording pool of the instruction: `train` or `heldout`.
        instruction: The focus instruction's words; empty for the type `none`.
        label: The focus label: index of the answer that follows the instruction.
    """

    example: Example
    split: str
    focus: str
    feature: str
    paraphrases: str
    instruction: str
    label: int


class Group(NamedTuple):
    """The queries about one x, and the distinct instructions behind them (several queries may share one)."""

    queries: tuple[Query, ...]
    instructions: tuple[str, ...]


def choose_wording(text: TaskText, seed: int, uid: str, focus: str, pool: str) -> str:
    """The wording template of a query: a pure function of (seed, uid, focus type, pool)."""
    bank = wordings(text.name, focus, pool)
    return bank[generator(seed, "wording", pool, focus, uid).integers(len(bank))]


def ask(text: TaskText, split: str, example: Example, pools: Sequence[str], seed: int) -> Group:
    """All queries about one example: pools x features of the example x focus types."""
    queries = []
    for pool in pools:
        templates = {focus: choose_wording(text, seed, example.uid, focus, pool) for focus in FOCUS_TYPES}
        for feature in example.spurious:
            for focus in FOCUS_TYPES:
                spec = spec_for(focus, feature)
                words = instruction(text, spec, templates[focus])
                queries.append(Query(example, split, focus, feature, pool, words, focus_label(example, spec)))
    return Group(tuple(queries), tuple(dict.fromkeys(q.instruction for q in queries)))


def encode(encoder: PromptEncoder, groups: Sequence[Group], window: int = 256) -> Iterator[tuple[EncodedPrompt, ...]]:
    """The prompts of each group, one per distinct instruction, tokenised a window of groups at a time."""
    for start in range(0, len(groups), window):
        part = groups[start : start + window]
        examples = [g.queries[0].example for g in part for _ in g.instructions]
        prompts = iter(encoder.encode(examples, [i for g in part for i in g.instructions]))
        for group in part:
            yield tuple(next(prompts) for _ in group.instructions)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer to a `Query`, in the form kept in `report/predictions.jsonl`.

    Attributes:
        uid: The example's.
        value: The value s of the spurious feature.
        core_label: Index of the true answer y.
        label: Index of the focus label.
        log_probs: log p of each candidate answer given the prompt, summed over its tokens, in nats.
        slices: Named properties of the example.
    """

    split: str
    uid: str
    focus: str
    feature: str
    paraphrases: str
    value: str
    core_label: int
    label: int
    log_probs: tuple[float, ...]
    slices: Mapping[str, str]

    @property
    def prediction(self) -> int:
        """Index of the most probable candidate; the first of equals."""
        return max(range(len(self.log_probs)), key=self.log_probs.__getitem__)

    @property
    def correct(self) -> bool:
        """Whether the prediction is the focus label."""
        return self.prediction == self.label


def answered(query: Query, log_probs: Sequence[float]) -> Prediction:
    """The record of a query and the log-probabilities of its candidates."""
    example = query.example
    return Prediction(
        split=query.split,
        uid=example.uid,
        focus=query.focus,
        feature=query.feature,
        paraphrases=query.paraphrases,
        value=example.spurious[query.feature].value,
        core_label=example.label,
        label=query.label,
        log_probs=tuple(round(float(p), 6) for p in log_probs),
        slices=example.slices,
    )
