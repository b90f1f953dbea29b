"""Which focus instruction an example is trained with: a pure function of (seed, epoch, example, branch).

Focus types are drawn by systematic sampling. An example's types lie on a circle in an order of its own, each on an arc
as long as its weight; k equidistant points, turned by an angle of its own, pick the types of its k branches. Each type
thus gets exactly its share on average, and the branches get k distinct types wherever the weights allow. From epoch to
epoch the angle turns by the golden ratio, so that over the epochs an example sees the types in their shares, far more
evenly than by independent draws.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from fit_jax.config import FocusConfig
from fit_jax.data.keyed_generator import generator
from fit_jax.data.orders import Order
from fit_jax.data.packing import Batch
from fit_jax.data.sampler import Branch, Sampler
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, SPURIOUS, FocusSpec, focus_label, spec_for

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
        self._paraphrases = {
            task: [_some(paraphrases_of(task, name, "train"), config.paraphrases) for name in self._types]
            for task in texts
        }
        self._spec = lru_cache(None)(spec_for)
        self._instruction = lru_cache(None)(lambda task, spec, paraphrase: instruction(texts[task], spec, paraphrase))

        circle = generator(seed, "focus", "circle")
        self._angle = circle.random(len(examples))
        self._order = circle.random((len(examples), len(self._types)), np.float32).argsort(axis=1).astype(np.int8)
        self._choices = lru_cache(2)(self._random_choices)

    def sample(self, epoch: int, indices: Sequence[int] | np.ndarray) -> list[tuple[FocusSample, ...]]:
        """The branches of each of the examples `indices` in one epoch.

        Raises:
            InputError: A focus type names a spurious feature and an example has none.
        """
        indices = np.asarray(indices)
        types = self._types_of(epoch, indices).tolist()
        choices = self._choices(epoch)[indices].tolist()
        return [
            tuple(self._sample(self.examples[i], t, *c) for t, c in zip(branch_types, branch_choices))
            for i, branch_types, branch_choices in zip(indices.tolist(), types, choices)
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

    def _sample(
        self, example: Example, focus_type: int, feature_choice: float, paraphrase_choice: float
    ) -> FocusSample:
        name = self._types[focus_type]
        feature = ""
        if SPURIOUS in name:
            features = list(example.spurious)
            if not features:
                raise InputError(
                    f"{example.named}: '{name}' needs a spurious feature, and it has none; "
                    "give it one, or set the weights of such types in focus.weights to 0"
                )
            feature = features[int(feature_choice * len(features))]
        spec, task = self._spec(name, feature), self._text.of(example).name
        paraphrases = self._paraphrases[task][focus_type]
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


def _some(paraphrases: Sequence[str], most: int | None) -> Sequence[str]:
    """So many of them at most, evenly from all."""
    kept = min(most or len(paraphrases), len(paraphrases))
    return [paraphrases[number * len(paraphrases) // kept] for number in range(kept)]
