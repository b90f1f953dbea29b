"""The groups of training examples, numbered."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from fit_jax.focus.example import Example, Group, group_of


def group_numbers(examples: Sequence[Example]) -> dict[Group, int]:
    """The groups of these examples (`focus.example.group_of`), numbered as they first come."""
    return {group: number for number, group in enumerate(dict.fromkeys(map(group_of, examples)))}


def groups_of(examples: Sequence[Example]) -> Int64[np.ndarray, " examples"]:
    """The number of each example's group."""
    numbers = group_numbers(examples)
    return np.array([numbers[group_of(example)] for example in examples], np.int64)
