"""What a training-free method consists of, and the model that it is given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from flax import nnx
from jax.sharding import Mesh

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.models.decoder import Params


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
    """

    apply: Callable[[Base, Task, Config, int], tuple[Subject, str]]
    steers: bool = False
