"""The choice of an intervention: what the methods share that steer a model by changing its forward pass.

They intervene in a model that was not tuned on focus instructions. Their strength (and layer) is chosen by focus
accuracy on validation examples in training paraphrases, so they see as much as tuned models do.
"""

from collections.abc import Callable, Mapping

import numpy as np
from flax import nnx

from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import Prompts, Subject, answer
from fit_jax.evaluation.queries import Group, ask
from fit_jax.evaluation.scoring import Scorer
from fit_jax.methods.intervention import Intervention, intervened_forward, no_intervention
from fit_jax.methods.training_free import Base

CHOICE = 64  # validation examples behind the choice of strength


def best_intervention(
    base: Base,
    task: Task,
    seed: int,
    options: Mapping[str, Intervention],
    prepare: Callable[[Group, Prompts], Prompts],
) -> tuple[Subject, str]:
    """The intervention with the highest mean focus accuracy on validation examples; no intervention is an option."""
    scorer = Scorer(base.graphdef, base.mesh, base.rows, intervened_forward)
    examples = task.splits["validation"].examples[:CHOICE]
    groups = [ask(task.text, "validation", example, ("train",), seed) for example in examples]
    results = []
    for name, change in {"none": nothing(base), **options}.items():
        subject = Subject(base.encoder, scorer, (base.states, change), prepare)
        right = [p.correct for answers in answer(groups, subject) for p in answers]
        results.append((float(np.mean(right)), name, subject))
    accuracy, name, subject = max(results, key=lambda result: result[0])
    return subject, f"{name} (validation focus accuracy {accuracy:.3f})"


def nothing(base: Base) -> Intervention:
    """The intervention that leaves the base model as it is."""
    config = nnx.merge(base.graphdef, *base.states).config
    return no_intervention(config.layers, config.width)
