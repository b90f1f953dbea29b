"""The choice of an intervention: what the methods share that steer a model by changing its forward pass.

They intervene in a model that was not tuned on focus instructions. What is left open (layer, strength, heads) is chosen
on validation examples in training paraphrases, so they see as much as tuned models do. What counts is whether the
answer follows the focus: only examples with y != y_s are asked, where core and spurious types want different answers,
and the two kinds of types weigh the same. A model that always answers y reaches 0.5 by that, however well it knows y.
Doing nothing is no option: what is reported is the best steering, which may be worse than none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from flax import nnx

from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Prompts, Subject, answer
from fit_jax.evaluation.metrics import group_by, kind_of
from fit_jax.evaluation.queries import Group, Query, ask
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.methods.intervention import (
    AWAY,
    TOWARDS,
    Intervention,
    intervened_forward,
    mark,
    marked_end,
    no_intervention,
)
from fit_jax.methods.training_free import Base

CHOICE = 64  # examples behind a choice

Prepare = Callable[[Group, Prompts], Prompts]


def best_intervention(
    base: Base, groups: Sequence[Group], options: Mapping[str, Intervention], prepare: Prepare
) -> tuple[Subject, str]:
    """The intervention under which answers follow the focus best, the first of equals.

    Args:
        base: The model.
        groups: What is asked.
        options: Interventions by name.
        prepare: Marks the tokens of prompts that an intervention concerns.

    Returns:
        The model under the intervention, and a line that names it and what it reached.
    """
    shares = following(base, groups, options, prepare)
    name = max(shares, key=lambda option: shares[option])
    scorer = Scorer(base.graphdef, base.mesh, base.rows, intervened_forward)
    subject = Subject(base.encoder, scorer, (base.states, options[name]), prepare)
    return subject, f"{name} (follows the focus in {shares[name]:.3f} of validation answers where y and y_s differ)"


def following(
    base: Base, groups: Sequence[Group], options: Mapping[str, Intervention], prepare: Prepare
) -> dict[str, float]:
    """Focus accuracy on these questions under each intervention, the mean of core and spurious types."""
    scorer = Scorer(base.graphdef, base.mesh, base.rows, intervened_forward)
    shares = {}
    for name, change in options.items():
        subject = Subject(base.encoder, scorer, (base.states, change), prepare)
        cells = group_by((p for given in answer(groups, subject) for p in given), lambda p: kind_of(p.focus))
        shares[name] = float(np.mean([np.mean([p.correct for p in cell]) for cell in cells.values()]))
    return shares


def opposed(task: Task, split: str, seed: int, paraphrases: str = "train") -> list[Group]:
    """Questions about the first examples of a split that have y != y_s, under every type that has an instruction.

    Args:
        task: The task.
        split: The split.
        seed: Chooses the paraphrases.
        paraphrases: The set that they are of.

    Raises:
        InputError: There is no such example.
    """
    asked = (ask(task.text, split, example, (paraphrases,), seed).queries for example in task.splits[split].examples)
    wanted = ([q for q in queries if q.instruction and _is_opposed(q)] for queries in asked)
    groups = list(islice((Group.of(queries) for queries in wanted if queries), CHOICE))
    if not groups:
        raise InputError(
            f"steering needs examples whose true and spurious labels differ; the {split} split has none: "
            "set task.rho_train below 1, or leave the method out"
        )
    return groups


def towards_or_away(group: Group, prompts: Sequence[EncodedPrompt]) -> Prompts:
    """The last prompt token and the answers marked by what the instruction asks for.

    Args:
        group: The questions.
        prompts: One for each instruction of the group.

    Returns:
        The prompts, marked `TOWARDS` where a spurious type asks and `AWAY` where a core type does; one without an
        instruction as it is.
    """
    kinds = {q.instruction: kind_of(q.focus) for q in group.queries}
    marked = []
    for instruction, prompt in zip(group.instructions, prompts, strict=True):
        if instruction:
            way = TOWARDS if kinds[instruction] == "spurious" else AWAY
            prompt = replace(marked_end(prompt, way), answers=tuple(mark(a, way) for a in prompt.answers))
        marked.append(prompt)
    return tuple(marked)


def nothing(base: Base) -> Intervention:
    """The intervention that leaves the base model as it is."""
    return no_intervention(nnx.merge(base.graphdef, *base.states).config)


def _is_opposed(query: Query) -> bool:
    return bool(query.feature) and query.example.spurious[query.feature].label != query.example.label
