"""DFR, deep feature reweighting (Kirichenko et al., 2023, "Last layer re-training is sufficient for robustness...").

First stage: cross-entropy on the training examples, except for a share of them that is held out. Second stage: of that
model the last layer alone is trained on, on the held-out examples with every group as frequent, with weight decay.

What the last layer is. The paper's is a classifier's linear head on its penultimate features. A language model's is the
projection onto the vocabulary, `lm_head`, with the norm before it. Where that cannot be trained by itself, because the
embedding shares its weights or because adapters are all that is trained, the last block stands in its place (with
adapters, those of the last block), and so does the norm where it is trained.

Differences: the paper fits a new head by logistic regression with an l1 penalty on features that it standardises, and
averages heads over several balanced subsets; here the old head is trained on by the run's optimizer, at a higher rate
(`train.dfr_rate`: alone it is a convex problem, which the paper solves to its optimum), with decoupled
weight decay (an l2 pull, `train.dfr_decay`), and balanced sampling in the place of subsets, since what a vocabulary
projection knows of other words is to stay. The paper holds out validation data; here a share of the training examples
is held out (`train.dfr_held_out`), so that no method sees more than another, and validation serves all in the same way.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from fit_jax.config import Config
from fit_jax.data.keyed_generator import generator
from fit_jax.data.orders import Balanced
from fit_jax.data.packing import Batch
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Subject
from fit_jax.focus.example import Example
from fit_jax.methods.groups import groups_of
from fit_jax.methods.method import SecondStage, TrainingMethod
from fit_jax.methods.plain import plain
from fit_jax.parallel.sharding import named_leaves


def build(task: Task, config: Config) -> TrainingMethod[Batch]:
    """The first stage, and what follows.

    Raises:
        InputError: A group of the training examples has none among those held out, or all.
    """
    train = task.splits["train"].examples
    kept, held_out = _parted(train, config.train.dfr_held_out, config.seed)
    groups = groups_of(held_out)
    count = len(set(groups_of(train).tolist()))
    if not kept or len(set(groups.tolist())) < count:
        raise InputError(
            f"train.dfr_held_out: {config.train.dfr_held_out} holds {len(held_out)} of {len(train)} examples out, of "
            f"which some of the {count} groups have none; hold out another share, or train on more examples"
        )

    def last_layer(first: Subject) -> TrainingMethod[Batch]:
        return replace(
            plain(task, config, held_out, Balanced(groups)),
            weight_decay=config.train.dfr_decay,
            rate=config.train.dfr_rate,
            moves=of_last_layer(named_leaves(first.params[0])),
            figures={"held_out": len(held_out)},
        )

    return replace(plain(task, config, kept), second=SecondStage(config.train.dfr_steps, last_layer, goes_on=True))


def of_last_layer(trained: Collection[str]) -> Callable[[str], bool]:
    """Whether a parameter is the last layer's; `trained` names all that a run trains."""
    parts = ("lm_head.", "final_norm.") if "lm_head.kernel" in trained else ("last_block.", "final_norm.")
    return lambda name: name.startswith(parts)


def _parted(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """The examples that stay and those held out; examples of one source text are on one side."""
    sources: dict[str, list[Example]] = {}
    for example in examples:
        sources.setdefault(example.uid.partition("#")[0], []).append(example)
    order = generator(seed, "dfr").permutation(len(sources)).tolist()
    of_source = list(sources.values())
    cut = round(share * len(order))
    held_out, kept = ([e for n in part for e in of_source[n]] for part in (order[:cut], order[cut:]))
    return kept, held_out
