"""What training takes from a split: which examples, in which order, and under which instructions.

A training method states its own `Sampler`; `TrainLoader` makes rows of whatever it is given. A `Sampler` is a pure
function of (seed, epoch, example), so that any step's batch can be made from nothing but its number.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Int32, Int64

from fit_jax.data.keyed_generator import generator
from fit_jax.data.layout import Item
from fit_jax.data.orders import EachOnce, Order
from fit_jax.data.packing import Batch
from fit_jax.errors import InputError
from fit_jax.focus.example import Example


class TrainBatch(Protocol):
    """Rows, and whatever a method needs beside them; a pytree of arrays."""

    @property
    def rows(self) -> Batch:
        """What the model reads."""
        ...

    @property
    def examples(self) -> Any:
        """How many examples, each under one focus instruction, the batch trains on; a scalar array."""
        ...

    @property
    def axes(self) -> Any:
        """The dimensions of each array, by letter: a pytree of the same structure."""
        ...


BatchType = TypeVar("BatchType", bound=TrainBatch)


class Branch(NamedTuple):
    """An example under one focus instruction ("" for none), and the candidates that follow its prompt."""

    instruction: str
    answers: Sequence[int]


class DrawnItem(NamedTuple):
    """An item of a row, and which training example it is of."""

    example: int
    item: Item


class Sampler(ABC, Generic[BatchType]):
    """What training takes from the examples it is given.

    Attributes:
        examples: The training examples.
        branches: Most branches of an example.
    """

    branches: int = 1

    def __init__(self, examples: Sequence[Example], seed: int, order: Order | None = None) -> None:
        """Samples nothing yet.

        Args:
            examples: The training examples.
            seed: Draws their order, and whatever else a sampler draws.
            order: How often an epoch takes each of them; by default once.

        Raises:
            InputError: There are no examples.
        """
        if not len(examples):
            raise InputError("the training split is empty; check the task's data and sizes")
        self.examples = examples
        self.seed = seed
        self._composition = EachOnce(len(examples)) if order is None else order

    @property
    def epoch_size(self) -> int:
        """Examples of an epoch; the same for every epoch."""
        return self._composition.size

    def order(self, epoch: int) -> Int64[np.ndarray, " epoch_size"]:
        """The examples of an epoch, by index, in an order of its own for every epoch."""
        return self._composition.draw(generator(self.seed, "order", epoch))

    @abstractmethod
    def branches_of(self, epoch: int, indices: Int64[np.ndarray, " n"]) -> list[tuple[Branch, ...]]:
        """The branches of each of these examples in an epoch."""

    def targets_needed(self, lengths: Sequence[int]) -> int:
        """Target positions that a branch takes, from the lengths of the example's candidates: those of one answer."""
        return max(lengths)

    @abstractmethod
    def batch(
        self, rows: Batch, places: Int32[np.ndarray, "items 2"], examples: Int64[np.ndarray, " items"]
    ) -> BatchType:
        """The batch of these rows.

        Args:
            rows: Rows of items.
            places: Each item's row and the slot number of its first answer.
            examples: The example each item is of.
        """
