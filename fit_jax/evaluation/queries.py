"""Which prompts an evaluation asks: every focus type of every feature, in paraphrases fixed by the seed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import isinf
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fit_jax.data.keyed_generator import generator
from fit_jax.evaluation.matching import match, other_phrases, unknown_answer
from fit_jax.focus.example import CORE, Example, TaskText, group_answer
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, SPURIOUS, FocusSpec, focus_label, spec_for


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the model: an example under one focus instruction.

    Attributes:
        split: Name of the split the example belongs to.
        focus: Focus type, one of `FOCUS_TYPES`; of several features at once, the specification.
        feature: The spurious feature the type speaks of.
        paraphrases: Paraphrase set of the instruction: `train`, `heldout` or `far`.
        instruction: The focus instruction's words; empty for the type `none`.
        label: The focus label: index of the answer that follows the instruction.
        paraphrase: Place of the paraphrase in its set (`focus.instructions.paraphrases_of`).
    """

    example: Example
    split: str
    focus: str
    feature: str
    paraphrases: str
    instruction: str
    label: int
    paraphrase: int = 0


class Group(NamedTuple):
    """The queries about one x, and the distinct instructions behind them (several queries may share one)."""

    queries: tuple[Query, ...]
    instructions: tuple[str, ...]

    @classmethod
    def of(cls, queries: Sequence[Query]) -> "Group":
        """The group of queries that share their example."""
        return cls(tuple(queries), tuple(dict.fromkeys(q.instruction for q in queries)))


def ask(
    text: TaskText, split: str, example: Example, paraphrase_sets: Sequence[str], seed: int, each: int = 1
) -> Group:
    """All queries about one example: sets of paraphrases x features of the example x focus types x paraphrases.

    Every question is asked in `each` different paraphrases of a set, or in as many as it has. Which they are is a pure
    function of (seed, uid, focus type, set); all of a set are as likely. An example without a spurious feature is asked
    the types that need none, under the feature name "".
    """
    queries = []
    for paraphrases in paraphrase_sets:
        choice = generator(seed, "paraphrase", paraphrases, example.uid).random(len(FOCUS_TYPES)).tolist()
        for feature in example.spurious or ("",):
            for focus, share in zip(FOCUS_TYPES, choice):
                if feature or SPURIOUS not in focus:
                    about = (split, focus, feature, paraphrases)
                    queries += _in_turns(text, example, about, _spec(focus, feature), share, each)
    return Group.of(queries)


def ask_combinations(
    text: TaskText,
    split: str,
    example: Example,
    specs: Iterable[FocusSpec],
    paraphrase_sets: Sequence[str],
    seed: int,
    each: int = 1,
) -> Group:
    """All queries about one example that name several of its features, as `ask` asks those that name one.

    Their `focus` is the whole specification, and their `feature` the one in focus, or else the first to be ignored.
    """
    own = [spec for spec in specs if {*spec.focus, *spec.ignore} - {CORE} <= example.spurious.keys()]
    queries = []
    for paraphrases in paraphrase_sets:
        for spec in own:
            share = float(generator(seed, "paraphrase", paraphrases, example.uid, str(spec)).random())
            feature = next(name for name in (*spec.focus, *spec.ignore) if name != CORE)
            queries += _in_turns(text, example, (split, str(spec), feature, paraphrases), spec, share, each)
    return Group.of(queries)


def _in_turns(
    text: TaskText, example: Example, about: tuple[str, str, str, str], spec: FocusSpec, share: float, each: int
) -> Iterator[Query]:
    """A question in `each` paraphrases of a set; `share` chooses the first, and the others are evenly spread."""
    split, focus, feature, paraphrases = about
    sentences = _sentences(text.name, spec, paraphrases)
    label, size = focus_label(example, spec), len(sentences)
    times = min(each, size)
    for turn in range(times):
        paraphrase = (int(share * size) + turn * size // times) % size
        words = instruction(text, spec, sentences[paraphrase])
        yield Query(example, split, focus, feature, paraphrases, words, label, paraphrase)


_spec = lru_cache(None)(spec_for)
_sentences = lru_cache(None)(paraphrases_of)


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
        spurious_label: Index of the answer y_s tied to that value.
        label: Index of the focus label.
        group: The answer's part of the example's group (`focus.example.group_answer`); the other part is `value`.
        log_probs: log p of each candidate answer given the prompt, summed over its tokens, in nats; -inf of one that a
            beam search did not reach.
        slices: Named properties of the example.
        cluster: What the example shares with others (`focus.example.Example`), or else its source text.
        text: What the model wrote; None where it was only asked to choose.
        meant: Index of the candidate that `text` means, or `UNPARSEABLE`; None as above.
    """

    split: str
    uid: str
    focus: str
    feature: str
    paraphrases: str
    paraphrase: int
    value: str
    core_label: int
    spurious_label: int
    label: int
    group: str
    log_probs: tuple[float, ...]
    slices: Mapping[str, str]
    cluster: str
    text: str | None = None
    meant: int | None = None

    @property
    def likeliest(self) -> int:
        """Index of the most probable candidate; the first of equals."""
        return max(range(len(self.log_probs)), key=self.log_probs.__getitem__)

    @property
    def prediction(self) -> int:
        """Index of the answer given: what the written text means, or else the most probable candidate."""
        return self.likeliest if self.meant is None else self.meant

    @property
    def correct(self) -> bool:
        """Whether the prediction is the focus label."""
        return self.prediction == self.label


def plain_record(prediction: Prediction) -> dict[str, Any]:
    """The prediction as plain values for JSON; log-probabilities of -inf are None."""
    record = asdict(prediction)
    return {**record, "log_probs": [None if isinf(p) else p for p in record["log_probs"]]}


def answered(
    query: Query, log_probs: Sequence[float] | Float[np.ndarray, " candidates"], text: str | None = None
) -> Prediction:
    """The record of a query, the log-probabilities of its candidates, and what the model wrote, if it was let to."""
    example = query.example
    value, spurious_label = example.spurious[query.feature] if query.feature else ("", example.label)
    return Prediction(
        split=query.split,
        uid=example.uid,
        focus=query.focus,
        feature=query.feature,
        paraphrases=query.paraphrases,
        paraphrase=query.paraphrase,
        value=value,
        core_label=example.label,
        spurious_label=spurious_label,
        label=query.label,
        group=group_answer(example, spurious_label),
        log_probs=tuple(round(float(p), 6) for p in log_probs),
        slices=example.slices,
        cluster=example.cluster or example.source,
        text=text,
        meant=None
        if text is None
        else match(text, example.candidates, other_phrases(example), unknown_answer(example.slices)),
    )
