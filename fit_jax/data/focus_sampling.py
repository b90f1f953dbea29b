"""Which focus instruction an example is trained with: a pure function of (seed, epoch, example, branch).

Focus types are drawn by systematic sampling. An example's types lie on a circle in an order of its own, each on an arc
as long as its weight; k equidistant points, turned by an angle of its own, pick the types of its k branches. Each type
thus gets exactly its share on average, and the branches get k distinct types wherever the weights allow. From epoch to
epoch the angle turns by the golden ratio, so that over the epochs an example sees the types in their shares, far more
evenly than by independent draws.

Where an example has several spurious features, a type about one speaks of any of them, each as likely. By
`focus.combinations` it names others too, to be ignored: any of the specifications of `combined_specs` that are not held
out, each as likely.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from fit_jax.config import FocusConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.orders import Order
from fit_jax.data.packing import Batch
from fit_jax.data.sampler import Branch, Sampler
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, TaskText
from fit_jax.focus.instructions import evenly, instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, SPURIOUS, FocusSpec, combined_specs, focus_label, held_out_specs, spec_for
from fit_jax.foreign import listed, quoted

# Features of one text that instructions about several may name: 6 make 486 of them.
MOST_COMBINED = 6
_GOLDEN_RATIO = (5**0.5 - 1) / 2


class FocusSample(NamedTuple):
    """One branch of a training example: its specification, the instruction shown ("" for none), and the focus label."""

    spec: FocusSpec
    instruction: str
    label: int


class FocusSampler(Sampler[Batch]):
    """Examples under focus instructions sampled by their weights, with the focus label to learn."""

    def __init__(
        self,
        examples: Sequence[Example],
        text: TaskText,
        config: FocusConfig,
        shown: bool,
        seed: int,
        order: Order | None = None,
    ) -> None:
        """Reads the weights; nothing is sampled yet.

        Args:
            examples: The training examples.
            text: The words of the task, or of each task of a mixture, which instructions are made of.
            config: Weights of the focus types, and branches of an example.
            shown: Whether the prompt shows the instruction, or only the label follows it.
            seed: Seed of the sampling.
            order: How often an epoch takes each example; by default once.

        Raises:
            InputError: A weight has an unknown focus type or is negative, or all are 0; less than one branch; no
                examples.
        """
        super().__init__(examples, seed, order)
        check_focus(config)
        self.branches = config.branches
        self._shown = shown
        self._types = [name for name, weight in config.weights.items() if weight > 0]
        weights = np.array([config.weights[name] for name in self._types])
        self._shares = weights / weights.sum()
        self._text = text
        texts = {each.name: each for each in text.each}
        self._paraphrases = lru_cache(None)(
            lambda task, spec: evenly(paraphrases_of(task, spec, "train"), config.paraphrases)
        )
        self._combinations, self._held_out = config.combinations, held_out_specs(config.held_out)
        self._specs = lru_cache(None)(self._drawn_from)
        self._instruction = lru_cache(None)(lambda task, spec, paraphrase: instruction(texts[task], spec, paraphrase))

        circle = generator(seed, "focus", "circle")
        self._angle = circle.random(len(examples))
        self._order = circle.random((len(examples), len(self._types)), np.float32).argsort(axis=1).astype(np.int8)
        self._choices = lru_cache(2)(self._random_choices)
        self._combined = lru_cache(2)(self._random_combined)

    def sample(self, epoch: int, indices: Sequence[int] | np.ndarray) -> list[tuple[FocusSample, ...]]:
        """The branches of each of the examples `indices` in one epoch.

        Raises:
            InputError: A focus type names a spurious feature and an example has none.
        """
        indices = np.asarray(indices)
        types = self._types_of(epoch, indices).tolist()
        choices = self._choices(epoch)[indices].tolist()
        combined = self._combined(epoch)[indices].tolist()
        return [
            tuple(self._sample(self.examples[i], *branch) for branch in zip(*branches))
            for i, *branches in zip(indices.tolist(), types, combined, choices)
        ]

    def branches_of(self, epoch: int, indices: Int64[np.ndarray, " n"]) -> list[tuple[Branch, ...]]:
        """The instruction of each sample, where it is shown, and the focus label alone."""
        sampled = self.sample(epoch, indices)
        return [tuple(Branch(s.instruction, (s.label,)) for s in branches) for branches in sampled]

    def batch(self, rows: Batch, places: Int32[np.ndarray, "items 2"], examples: Int64[np.ndarray, " items"]) -> Batch:
        """The rows alone: they hold nothing but answers to learn."""
        return rows

    def _types_of(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """Index of the focus type, (examples, branches)."""
        angle = (self._angle[indices] + epoch * _GOLDEN_RATIO) % 1.0
        points = (angle[:, None] + np.arange(self.branches)) / self.branches
        order = self._order[indices]
        arc_ends = np.cumsum(self._shares[order], axis=1)[:, :-1]  # the last ends at 1, beyond every point
        arc = (points[:, :, None] >= arc_ends[:, None, :]).sum(axis=2)
        return np.take_along_axis(order, arc, axis=1)

    def _random_choices(self, epoch: int) -> np.ndarray:
        """Uniform numbers of an epoch that choose the feature and the paraphrase, (examples, branches, 2)."""
        shape = (len(self.examples), self.branches, 2)
        return generator(self.seed, "focus", "choices", epoch).random(shape, np.float32)

    def _random_combined(self, epoch: int) -> np.ndarray:
        """Whether each branch of an epoch is to name several features, (examples, branches)."""
        shape = (len(self.examples), self.branches)
        if not self._combinations:
            return np.zeros(shape, bool)
        return generator(self.seed, "focus", "combinations", epoch).random(shape, np.float32) < self._combinations

    def _drawn_from(self, name: str, features: tuple[str, ...], combined: bool) -> tuple[FocusSpec, ...]:
        """The specifications of a focus type for an example with these features, of which one is drawn."""
        if SPURIOUS not in name:
            return (spec_for(name, ""),)
        several = combined_specs(name, features) if combined else ()
        shown = tuple(spec for spec in several if spec not in self._held_out)
        return shown or tuple(spec_for(name, feature) for feature in features)

    def _sample(self, example: Example, focus_type: int, combined: bool, choices: tuple[float, float]) -> FocusSample:
        name = self._types[focus_type]
        specs = self._specs(name, tuple(example.spurious), combined)
        if not specs:
            raise InputError(
                f"{example.named}: '{name}' needs a spurious feature, and it has none; "
                "give it one, or set the weights of such types in focus.weights to 0"
            )
        spec_choice, paraphrase_choice = choices
        spec, task = specs[int(spec_choice * len(specs))], self._text.of(example).name
        paraphrases = self._paraphrases(task, spec)
        paraphrase = paraphrases[int(paraphrase_choice * len(paraphrases))]
        shown = self._instruction(task, spec, paraphrase) if self._shown else ""
        return FocusSample(spec, shown, focus_label(example, spec))


def check_focus(config: FocusConfig) -> None:
    """Raises InputError for a weight of an unknown focus type or that is negative, none above 0, or no branch."""
    for name, weight in config.weights.items():
        if name not in FOCUS_TYPES:
            raise InputError(f"focus.weights: unknown focus type {name!r}; known: {', '.join(FOCUS_TYPES)}")
        if not (0 <= weight < float("inf")):
            raise InputError(f"focus.weights: {name!r} has weight {weight}; a weight is a number from 0 up")
    if not any(config.weights.values()):
        raise InputError("focus.weights: every weight is 0; give at least one focus type a positive weight")
    if config.branches < 1:
        raise InputError(f"focus.branches: {config.branches}; an example has at least one branch")


def combinations_asked(config: FocusConfig, examples: Iterable[Example]) -> dict[FocusSpec, bool]:
    """The specifications of several features of an example that are evaluated, and whether training shows each.

    None are where training is to show none and none are held out.
    """
    if not (config.combinations or config.held_out):
        return {}
    held_out = held_out_specs(config.held_out)
    together = dict.fromkeys(tuple(example.spurious) for example in examples)
    return {
        spec: bool(config.combinations and config.weights.get(name, 0) > 0) and spec not in held_out
        for name in FOCUS_TYPES
        for features in together
        for spec in combined_specs(name, features)
    }


def check_combinations(config: FocusConfig, task: Task) -> None:
    """Checks what `focus.combinations` and `focus.held_out` ask of a task, or of the tasks of a mixture.

    Raises:
        InputError: No example for validation has several features or one has too many, or a held-out instruction is
            about none of them.
    """
    if not (config.combinations or config.held_out):
        return
    field, name = "combinations" if config.combinations else "held_out", task.text.name
    examples = [example for each in task.each.values() for example in each.splits["validation"].examples]
    if (most := max((len(example.spurious) for example in examples), default=0)) > MOST_COMBINED:
        raise InputError(
            f"focus.{field}: texts of task {name} have up to {most} spurious features, which make too many "
            f"instructions about several; name {MOST_COMBINED} or fewer in task.features, or leave it out"
        )
    known = {str(spec) for spec in combinations_asked(config, examples)}
    if not known:
        raise InputError(
            f"focus.{field}: task {name} has no two spurious features to combine in one text; name several in "
            "task.features, or leave it out"
        )
    for spec in sorted(map(str, held_out_specs(config.held_out))):
        if spec not in known:
            raise InputError(
                f"focus.held_out: {quoted(spec)} is no instruction about several features of task {name}; write "
                f"{listed(sorted(known), 6)}"
            )
