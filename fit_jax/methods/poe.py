"""Product of experts: training against the predictions of a model that knows the spurious features alone.

Paper, section 4; Clark et al. (2019), Mahabadi et al. (2020). The loss is that of the renormalised product of the two
models' answers, p(c | x_i) p_bias(c | s_i)^a, and the bias-only model is left out at test time. It is given: its
gradient is not taken, and it has no loss of its own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.focus.example import Example
from fit_jax.methods.candidates import CandidateBatch, CandidateLoss, CandidateSampler
from fit_jax.methods.method import TrainingMethod, true_label

Agreement = Mapping[tuple[str, str], float]  # share of y = y_s, by feature and value


def build(task: Task, config: Config) -> TrainingMethod[CandidateBatch]:
    """The bias-only model's log-probabilities, times `train.poe_weight`, as the prior of the candidates."""
    examples = task.splits["train"].examples
    shares, weight = agreement(examples), config.train.poe_weight
    sampler = CandidateSampler(examples, config.seed, prior=lambda e: weight * bias_log_probs(e, shares))
    return TrainingMethod(sampler, CandidateLoss(), true_label)


def agreement(examples: Sequence[Example]) -> Agreement:
    """The bias-only model: the share of examples with y = y_s for each value of each feature.

    One example of either kind is added, so that no answer is ruled out.
    """
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for example in examples:
        for feature, (value, label) in example.spurious.items():
            hits[feature, value].append(example.label == label)
    return {key: (sum(h) + 1) / (len(h) + 2) for key, h in hits.items()}


def bias_log_probs(example: Example, shares: Agreement) -> Float[np.ndarray, " candidates"]:
    """log p_bias of each candidate: the share of y = y_s for y_s, the rest spread evenly; features are multiplied."""
    total = np.zeros(len(example.candidates))
    for feature, (value, label) in example.spurious.items():
        share = shares[feature, value]
        logs = np.full(len(total), np.log((1 - share) / (len(total) - 1)))
        logs[label] = np.log(share)
        total += logs
    return total - np.log(np.exp(total).sum())
