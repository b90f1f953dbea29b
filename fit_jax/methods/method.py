"""What a training method consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from fit_jax.data.sampler import BatchType, Sampler
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.queries import Query
from fit_jax.training.objective import Objective


@dataclass(frozen=True, kw_only=True)
class TrainingMethod(Generic[BatchType]):
    """A way of training; everything else, from the mesh to the checkpoints, is the same for all.

    Attributes:
        sampler: What it takes of the training examples, and how a batch is completed.
        objective: What it minimises on these batches.
        validated: The form in which validation asks a query: as training shows it.
        weight_decay: In the place of `optimizer.weight_decay`; None leaves that.
        rate: Factor on `optimizer.learning_rate`.
        moves: Whether the parameter of a dotted name is trained, of those that the run trains; None trains all.
        figures: Numbers that a reader of its results must know, by name; records with a validation hold them, each
            after `training.metrics.FIGURE`.
        second: What follows when this has run its course; None where nothing does.
    """

    sampler: Sampler[BatchType]
    objective: Objective[BatchType]
    validated: Callable[[Query], Query]
    weight_decay: float | None = None
    rate: float = 1.0
    moves: Callable[[str], bool] | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    second: "SecondStage | None" = None


@dataclass(frozen=True)
class SecondStage:
    """The second stage of a method, which shares the run's updates with the first.

    Attributes:
        share: Its share of the updates.
        build: What it trains with, from the model that the first stage ended with.
        goes_on: Whether it starts from that model's weights; otherwise it starts where the first stage started.
    """

    share: float
    build: Callable[[Subject], TrainingMethod[Any]]
    goes_on: bool


def as_instructed(query: Query) -> Query:
    """The query itself: under its focus instruction, for the focus label."""
    return query


def uninstructed(query: Query) -> Query:
    """The query without its focus instruction, still for the focus label."""
    return replace(query, instruction="")


def true_label(query: Query) -> Query:
    """The query without its focus instruction, for the true label."""
    return replace(query, instruction="", label=query.example.label)
