"""What a training method consists of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, NamedTuple

from fit_jax.data.sampler import BatchType, Sampler
from fit_jax.evaluation.queries import Query
from fit_jax.training.objective import Objective


class TrainingMethod(NamedTuple, Generic[BatchType]):
    """A way of training; everything else, from the mesh to the checkpoints, is the same for all.

    Attributes:
        sampler: What it takes of the training examples, and how a batch is completed.
        objective: What it minimises on these batches.
        validated: The form in which validation asks a query: as training shows it.
    """

    sampler: Sampler[BatchType]
    objective: Objective[BatchType]
    validated: Callable[[Query], Query]


def as_instructed(query: Query) -> Query:
    """The query itself: under its focus instruction, for the focus label."""
    return query


def uninstructed(query: Query) -> Query:
    """The query without its focus instruction, still for the focus label."""
    return replace(query, instruction="")


def true_label(query: Query) -> Query:
    """The query without its focus instruction, for the true label."""
    return replace(query, instruction="", label=query.example.label)
