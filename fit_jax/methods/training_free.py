"""What a training-free method consists of, and the model that it is given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from fit_jax.config import Config
from fit_jax.data.layout import Item
from fit_jax.data.packing import Batch, stack
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.models.decoder import Params
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.parallel.sharding import row_shards


@dataclass(frozen=True)
class Base:
    """The model that a method starts from.

    Attributes:
        graphdef: Its structure.
        states: Its parameters, as `nnx.merge(graphdef, *states)` takes them.
        mesh: Where they lie.
        encoder: Its prompt code.
        rows: Rows of a batch.
    """

    graphdef: nnx.GraphDef
    states: Params
    mesh: Mesh
    encoder: PromptEncoder
    rows: int

    def plain(self, encoder: PromptEncoder | None = None) -> Subject:
        """The model itself, asked by its own prompt code or by another."""
        scorer = Scorer(self.graphdef, self.mesh, self.rows)
        return Subject(self.encoder if encoder is None else encoder, scorer, self.states)


class TrainingFree(NamedTuple):
    """A method that trains nothing.

    Attributes:
        apply: From the model, the task, the run's config and the number of solved examples in few-shot prompts: who is
            evaluated, and what a reader must know of it ("" for nothing).
        steers: Whether it intervenes in the forward pass. Its model can only score given answers, and is one that knows
            the task: where no pretrained model is named, the one that SFT(y) trains.
        model_of: The training method whose model it takes instead, pretrained or not; None for none.
    """

    apply: Callable[[Base, Task, Config, int], tuple[Subject, str]]
    steers: bool = False
    model_of: str | None = None


def one_a_row(
    base: Base, items: Sequence[Item], weigh: Callable[[Item], Float[np.ndarray, " m"]] | None = None
) -> Iterator[Batch]:
    """The items in batches that lie on the model's mesh, each in a row of its own; the last rows may be empty.

    Args:
        base: The model.
        items: The items.
        weigh: The weight of each target of an item; by default 1.
    """
    T, C = max(len(i.tokens) for i in items), max(len(i.target_ids) for i in items)
    rows = -(-base.rows // row_shards(base.mesh)) * row_shards(base.mesh)
    local = rows_of_this_process(rows, base.mesh)
    for start in range(0, len(items), rows):
        part = items[start : start + rows]
        batch, _ = stack([[item] for item in part] + [[]] * (rows - len(part)), T, C)
        if weigh is not None:
            for weights, item in zip(batch.target_weight, part):
                weights[: len(item.target_ids)] = weigh(item)
        yield to_global(Batch(*(a[local] for a in batch)), base.mesh)
