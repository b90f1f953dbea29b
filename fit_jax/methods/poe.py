"""Product of experts: training against a model that was trained to answer by the bias alone.

Clark et al. (2019), "Don't take the easy way out", section 3.2, bias product; He et al. (2019), equation (4), DRiFt;
Karimi Mahabadi et al. (2020), equation (2); paper, section 4. With p the model, b the bias-only model and z_i what the
latter reads of example i, the loss is that of the renormalised product of the two,

    loss_i = -log softmax_c(log p(c | x_i) + a log b(c | z_i))[y_i],    a = `train.poe_weight` (1 in the papers),

so that what the bias explains teaches the model little. The bias-only model (`methods.bias_model`) is trained first and
then given: its gradient is not taken. At test time the model answers alone.

Differences: the softmax is over the example's candidates, where a classifier's is over its classes. The bias-only model
is log-linear, and its predictions on the training examples are cross-fitted by source text, so that it is no surer of
them than it would be of new ones drawn alike (of BBQ: of the same templates, which test rows are not); the papers use
larger networks, fitted to the very examples. Karimi Mahabadi et al. train both models together, with a loss of the
bias-only model's own; Clark et al. and He et al. one after the other, as here. The learned mixing of Clark et al.
(`Learned-Mixin`) is not built.
"""

from fit_jax.config import Config
from fit_jax.data.task import Task
from fit_jax.methods.bias_model import cross_fitted
from fit_jax.methods.candidates import CandidateBatch, CandidateLoss, CandidateSampler
from fit_jax.methods.method import TrainingMethod, true_label

ALL_CANDIDATES = True


def build(task: Task, config: Config) -> TrainingMethod[CandidateBatch]:
    """The bias-only model's log-probabilities, times `train.poe_weight`, as the prior of the candidates."""
    examples, weight = task.splits["train"].examples, config.train.poe_weight
    bias = cross_fitted(examples, task.text.biased, config.seed)
    priors = {example.uid: weight * log_probs for example, log_probs in zip(examples, bias.log_probs)}
    sampler = CandidateSampler(examples, config.seed, prior=lambda example: priors[example.uid])
    figures = {"bias_accuracy": bias.accuracy, "bias_log_likelihood": bias.log_likelihood}
    return TrainingMethod(sampler=sampler, objective=CandidateLoss(), validated=true_label, figures=figures)
