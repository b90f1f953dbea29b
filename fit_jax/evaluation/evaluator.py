"""What is asked of a model: the evaluation of a task's splits, and the smaller validation during training."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import NamedTuple, cast

import numpy as np

from fit_jax.config import Config
from fit_jax.data.keyed_generator import generator
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.asked_again import splits_asked_again
from fit_jax.evaluation.beams import search_all
from fit_jax.evaluation.combinations import Combined, combination_queries, combined
from fit_jax.evaluation.decoding import SamplingParams, generate_all
from fit_jax.evaluation.decoy_evaluation import Decoyed, decoy_queries
from fit_jax.evaluation.metrics import check_finite
from fit_jax.evaluation.queries import Group, Prediction, Query, answered, ask, encode
from fit_jax.evaluation.scoring import ForwardParams, Scorer
from fit_jax.evaluation.turn_evaluation import Turned, turn_queries
from fit_jax.focus.example import Example, group_answer
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.foreign import quoted
from fit_jax.models.decoder import Params

# Groups whose prompts are searched together, those of like length in one batch.
_SEARCHED = 256
# Validation examples of a group below which its accuracy says more about chance than about the model.
_ENOUGH = 8


class Evaluation(NamedTuple):
    """The questions asked and the answers given, in the same order; beside them more that is reported apart."""

    queries: list[Query]
    predictions: list[Prediction]
    decoyed: Sequence[Decoyed] = ()
    turned: Sequence[Turned] = ()
    combined: Sequence[Combined] = ()


Prompts = tuple[EncodedPrompt, ...]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a model, and how it is asked.

    Attributes:
        encoder: The prompt code the model was trained with.
        scorer: Scores candidates on the model's mesh.
        params: What the scorer takes; the model's states.
        prepare: Changes the prompts of a group before they are scored, or does not.
    """

    encoder: PromptEncoder
    scorer: Scorer
    params: ForwardParams
    prepare: Callable[[Group, Prompts], Prompts] = lambda group, prompts: prompts


def evaluate(
    task: Task, subject: Subject, config: Config, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Evaluation:
    """Asks every focus type of every feature, split and paraphrase set that the config names (paper, section 4).

    All methods get the same prompts, focus instructions included, also those trained without any: what is compared is
    what a user gets who types the instruction. Their training prompt is the type `none`.

    Args:
        task: Supplies the splits; one task, of a mixture one after another.
        subject: Who is asked.
        config: The run; `evaluation` says what is asked, and its seed or else the run's fixes paraphrases.
        on_progress: Called with the examples done and in all.

    Raises:
        InputError: As `evaluated_splits`, or scores that are not finite.
    """
    asked, seed = config.evaluation, config.evaluation_seed
    groups: list[Group] = []
    chosen = {name: task.splits[name].examples[: asked.examples] for name in evaluated_splits(task, config)}
    for name, examples in chosen.items():
        groups += [ask(task.text, name, e, asked.paraphrases, seed, asked.paraphrases_each) for e in examples]
    decoys = decoy_queries(task.text, groups, seed) if asked.decoys else []
    turns = turn_queries(task.text, groups, seed) if asked.turns else []
    combinations = combination_queries(task.text, chosen, config)
    groups += [Group.of([query]) for _, query, _ in (*decoys, *turns)]
    groups += [group for group, _ in combinations]
    queries: list[Query] = []
    predictions: list[Prediction] = []
    on_progress(0, len(groups))  # the first answers wait for a program to be compiled
    written = asked.written_tokens if is_written(task, config) else None
    for number, (group, answers) in enumerate(zip(groups, answer(groups, subject, written, asked.beams)), start=1):
        queries.extend(group.queries)
        predictions.extend(answers)
        on_progress(number, len(groups))
    seen = [is_seen for _, of_group in combinations for is_seen in of_group]
    last = len(queries) - len(seen)
    end = last - len(decoys) - len(turns)
    answer_to = {id(query): given for query, given in zip(queries, predictions)}
    return Evaluation(
        queries[:end],
        predictions[:end],
        [Decoyed(decoy, answer_to[id(query)], answer_to[id(plain)]) for plain, query, decoy in decoys],
        [Turned(earlier, answer_to[id(query)], answer_to[id(plain)]) for plain, query, earlier in turns],
        [combined(*each) for each in zip(queries[last:], predictions[last:], seen)],
    )


def is_written(task: Task, config: Config) -> bool:
    """Whether an evaluation lets the model write its answers freely: as the config says, or else the task."""
    return task.text.free if config.evaluation.written is None else config.evaluation.written


def answer(
    groups: Sequence[Group], subject: Subject, written: int | None = None, beams: int | None = None
) -> Iterator[list[Prediction]]:
    """Per group, the answers to its queries.

    Args:
        groups: The questions.
        subject: Who is asked.
        written: Most tokens of an answer that the model writes freely; None lets it choose among the candidates.
        beams: Beginnings of candidates kept by a beam search; None scores all candidates.

    Raises:
        InputError: Scores that are not finite, or a model under an intervention is to write or search.
    """
    prompts: Iterable[Prompts] = map(subject.prepare, groups, encode(subject.encoder, groups))
    texts: Iterator[str | None] = repeat(None)
    if written is not None:
        prompts = list(prompts)
        texts = iter(_written([p.prompt for group in prompts for p in group], subject, written))
    for group, log_probs in zip(groups, _log_probs(prompts, subject, beams)):
        answer_to = {shown: (scores, next(texts)) for shown, scores in zip(group.instructions, log_probs)}
        answers = [answered(q, *answer_to[q.instruction]) for q in group.queries]
        check_finite(answers, searched=beams is not None)
        yield answers


def _log_probs(prompts: Iterable[Prompts], subject: Subject, beams: int | None) -> Iterator[list[np.ndarray]]:
    """Per group and prompt, log p of each candidate, -inf of those that a search did not reach."""
    scorer = subject.scorer
    if beams is None:
        for scores in scorer.score(subject.params, prompts):
            yield [score.log_prob for score in scores]
        return
    if not scorer.plain:
        raise InputError("evaluation.beams: a steered model is only scored; set it to null, or leave its method out")
    params = cast(Params, subject.params)  # as the scorer is plain
    waiting = iter(prompts)
    while part := list(islice(waiting, _SEARCHED)):
        found = iter(search_all(scorer.graphdef, params, list(chain(*part)), beams, scorer.rows))
        for group in part:
            yield [next(found) for _ in group]


def _written(prompts: Sequence[np.ndarray], subject: Subject, tokens: int) -> list[str]:
    """What the model writes after each prompt, up to its end token."""
    scorer, encoder = subject.scorer, subject.encoder
    if not scorer.plain:
        raise InputError("evaluation.written: a steered model only chooses; set it to false, or leave its method out")
    sampling = SamplingParams(tokens=tokens, stop=(encoder.end_id,))
    params = cast(Params, subject.params)  # as the scorer is plain
    made = generate_all(scorer.graphdef, params, prompts, sampling, scorer.rows)
    return encoder.tokenizer.batch_decode([ids.tolist() for ids in made], skip_special_tokens=True)


def evaluated_splits(task: Task, config: Config) -> tuple[str, ...]:
    """The splits that an evaluation of this task asks.

    Raises:
        InputError: A split that the task lacks, that is empty or whose examples are not kept, or none that is asked
            again where that is wanted.
    """
    names = config.evaluation.splits or task.test_splits
    for name in names:
        if name not in task.splits:
            raise InputError(
                f"evaluation.splits: task {task.text.name} has no split {quoted(name)}; it has {', '.join(task.splits)}"
            )
        if not task.splits[name].examples[:1]:
            raise InputError(
                f"split {name!r} of task {task.text.name} holds no example; drop it from evaluation.splits"
            )
    for field in ("decoys", "turns"):
        if getattr(config.evaluation, field) and not splits_asked_again(names):
            raise InputError(
                f"evaluation.{field}: they are asked on iid, low and flipped, and the splits evaluated are "
                f"{', '.join(names)}; add one to evaluation.splits"
            )
    return tuple(names)


class Validation:
    """Validation loss and focus accuracy on a fixed set of prompts, for use during training.

    Each validation example is asked about one of its features under every focus type that training draws, with
    training paraphrases.
    """

    def __init__(
        self,
        task: Task,
        encoder: PromptEncoder,
        scorer: Scorer,
        config: Config,
        asked: Callable[[Query], Query] = lambda query: query,
    ) -> None:
        """Chooses and tokenises the prompts; calling the object only scores them.

        Args:
            task: Supplies the validation split.
            encoder: Turns examples into prompts.
            scorer: Scores the model in training.
            config: The run.
            asked: The form in which a query is asked; a method trained without focus instructions is asked without.

        Raises:
            InputError: The validation split is empty.
        """
        examples = task.splits["validation"].examples
        if not len(examples):
            raise InputError("the validation split holds no example; raise task.validation_examples")
        chosen = examples[: config.evaluation.validation_examples]
        self._scorer = scorer
        self._groups = [self._group(task, example, config, asked) for example in chosen]
        self._prompts = list(encode(encoder, self._groups))

    def __call__(self, params: Params) -> dict[str, float]:
        """Measures of the model with `params`.

        Returns:
            `validation_loss`, in nats per target token, `validation_focus_accuracy`, and `validation_worst_group`: the
            lowest focus accuracy of a focus type and group (`focus.example.group_of`) among those of which there are
            enough examples to tell, or of all where there are enough of none; of a mixture, the lowest of any task's,
            chosen in each by itself. Types that are asked without an instruction are one: no answer to a prompt is
            right for two labels, and the best of such a model would be the one that tosses a coin between them.
        """
        loss = tokens = correct = count = 0
        by_group: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for group, prompts, scores in zip(self._groups, self._prompts, self._scorer.score(params, self._prompts)):
            at = {instruction: i for i, instruction in enumerate(group.instructions)}
            own: dict[tuple[str, ...], list[bool]] = defaultdict(list)
            for query in group.queries:
                branch = at[query.instruction]
                log_prob = scores[branch].log_prob
                loss -= float(log_prob[query.label])
                tokens += len(prompts[branch].answers[query.label])
                right = bool(log_prob.argmax() == query.label)
                correct += right
                count += 1
                own[query.focus if query.instruction else "", query.feature, *_group_of(query)].append(right)
            for key, answers in own.items():
                by_group[key].append(float(np.mean(answers)))
        by_task: dict[str, list[list[float]]] = defaultdict(list)
        for (_, _, part, *_), group in by_group.items():
            by_task[part].append(group)
        telling = chain.from_iterable([g for g in of if len(g) >= _ENOUGH] or of for of in by_task.values())
        return {
            "validation_loss": loss / tokens,
            "validation_focus_accuracy": correct / count,
            "validation_worst_group": min(float(np.mean(group)) for group in telling),
        }

    @staticmethod
    def _group(task: Task, example: Example, config: Config, asked: Callable[[Query], Query]) -> Group:
        features = sorted(example.spurious) or [""]
        feature = features[generator(config.seed, "validation", example.uid).integers(len(features))]
        everything = ask(task.text.of(example), "validation", example, ("train",), config.seed)
        queries = [q for q in everything.queries if q.feature == feature and config.focus.weights.get(q.focus, 0) > 0]
        return Group.of([asked(query) for query in queries])


def _group_of(query: Query) -> tuple[str, str, str]:
    """The task, the value and the answer's part of the group of a query's example, by the feature it speaks of."""
    value, spurious_label = query.example.spurious.get(query.feature, ("", query.example.label))
    return query.example.part, value, group_answer(query.example, spurious_label)
