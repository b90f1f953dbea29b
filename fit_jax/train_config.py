"""How a run trains: the sections `optimizer`, `train` and `rehearsal` of a `Config`."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.plugins import plugin_names

# The methods of this package that train: each names its module in `fit_jax.methods`.
TrainedMethod = Literal["fit", "sft_y", "sft_y_focus", "poe", "group_dro", "group_balanced", "jtt", "dfr"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """What an update is, after clipping by global norm."""

    # The optimizer: `adamw`; `adafactor`, which keeps a row and a column for each large matrix; `lion`, with half of
    # AdamW's state, at a learning rate several times smaller; `muon` for the layers' matrices and AdamW for the rest.
    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"
    # Peak learning rate, after warm-up; for adafactor a share of each matrix's root mean square.
    learning_rate: float = 2e-3
    # What follows the warm-up: `cosine` or `linear` down to `final`, `constant`, or `wsd` (warm-up, stable, decay).
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    # Share of the steps spent warming up.
    warmup: float = 0.05
    # Final learning rate as a share of the peak.
    final: float = 0.0
    # Share of the steps, the last ones, in which the schedule `wsd` falls in a line to `final`.
    decay: float = 0.2
    # Decoupled decay of weight matrices, as a factor on the learning rate.
    weight_decay: float = 0.01
    # Decay rate of the running mean of gradients; in lion the mean's weight in the update. Adafactor has no such mean.
    beta1: float = 0.9
    # Decay rate of the running mean of squared gradients; in lion of the mean of gradients. Adafactor has its own.
    beta2: float = 0.95
    # Added to the root of the mean square, which adamw and muon divide by.
    epsilon: float = 1e-8
    # Largest global norm of the gradient; a longer one is scaled down to it.
    clip_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    # Training method: fit (focus tuning), sft_y (true labels, no focus instruction) or sft_y_focus (focus labels, no
    # instruction); or one that learns true labels against the spurious ones: poe (product of experts), group_dro,
    # group_balanced (groups drawn evenly), jtt (just train twice) or dfr (deep feature reweighting).
    # Methods of other packages go by the names of their entry points.
    method: str = "fit"
    # Optimizer steps; null means `epochs` passes over the training split.
    steps: int | None = 600
    # Passes over the training split; used where `steps` is null.
    epochs: int = 5
    # Rows of the global batch of one optimizer step.
    batch_size: int = 12
    # Training examples of one optimizer step, however many rows they fill: what makes the budgets of two methods equal.
    # They are packed into `batch_size` rows, as long as it takes up to `sequence_length`. Null fills the rows instead.
    examples_per_step: int | None = None
    # Tokens in a row.
    sequence_length: int = 256
    # Several examples in a row behind segment masks (true), or one example a row, with rows of similar length in a
    # batch that is as wide as the longest (false; the step is compiled for each of up to eight widths).
    packing: bool = True
    # Target positions a row may hold; null means enough for the task (the vocabulary projection runs at these alone).
    targets_per_row: int | None = None
    # Weight of the bias-only model's log-probabilities in poe; 0 leaves it out.
    poe_weight: float = 1.0
    # Step size of the groups' weights in group_dro; 0 leaves them equal.
    group_step: float = 0.01
    # Least weight decay in group_dro, which needs a strong one; where optimizer.weight_decay is larger, that is taken.
    group_decay: float = 0.1
    # Share of the steps that go to the first run of jtt, whose errors the second run learns from.
    jtt_first: float = 0.2
    # How often the second run of jtt takes an example that the first one has wrong, for each time it takes another.
    jtt_weight: int = 6
    # Share of the steps that retrain the last layer in dfr.
    dfr_steps: float = 0.25
    # Share of the training examples that dfr holds out for the last layer.
    dfr_held_out: float = 0.2
    # Factor on the learning rate for the last layer in dfr, which alone is a convex problem and stands large steps.
    dfr_rate: float = 10.0
    # Weight decay of the last layer in dfr, in the place of optimizer.weight_decay.
    dfr_decay: float = 0.1
    # Weight of the loss that balances a mixture's experts, where the whole model is trained; 0 means none. Models were
    # pretrained with 0.001 to 0.02.
    expert_balance: float = 0.0
    # Microbatches whose gradients are summed in one optimizer step.
    accumulate: int = 1
    # An example longer than a row: `error`, or `cut` its input text (never the instruction, the focus or the answer).
    long_text: Literal["error", "cut"] = "error"
    # Steps between metric lines.
    log_every: int = 10
    # Steps between validations; null means only at the end.
    validate_every: int | None = 50
    # Evaluations without improvement before training stops; null means never.
    patience: int | None = None
    # What `best` means for early stopping and the best checkpoint, on validation: `loss`, `focus_accuracy`, or
    # `worst_group`, the focus accuracy of the worst group.
    best: Literal["loss", "focus_accuracy", "worst_group"] = "loss"
    # Steps between checkpoints.
    checkpoint_every: int = 100
    # Checkpoints kept besides the best.
    keep: int = 2
    # Steps to record, from the second one on that is taken, in a trace that TensorBoard and XProf open (under the run's
    # `tensorboard`); 0 records none. Recording takes time and some megabytes a step.
    profile: int = 0
    # Where the run is followed besides its folder: `wandb`, `mlflow`, `trackio`; each is an extra of this package.
    trackers: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()

    def check(self) -> None:
        """Raises InputError for an unknown method, or a number that is not positive."""
        if self.method not in get_args(TrainedMethod) and self.method not in plugin_names("methods"):
            known = (*get_args(TrainedMethod), *plugin_names("methods"))
            raise InputError(f"train.method: {shown(self.method)!r} is not one of {', '.join(known)}")
        for name in ("batch_size", "sequence_length", "accumulate", "log_every", "checkpoint_every", "keep", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name}: {getattr(self, name)} is less than 1")
        for name in ("steps", "validate_every", "patience", "targets_per_row", "examples_per_step"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"train.{name}: {getattr(self, name)} is less than 1; null stands for none")
        for name in ("poe_weight", "group_step", "group_decay", "dfr_decay", "profile", "expert_balance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"train.{name}: {getattr(self, name)} is not a number from 0 up")
        if not 0 < self.dfr_rate < math.inf:
            raise InputError(f"train.dfr_rate: {self.dfr_rate} is not a number above 0")
        for name in ("jtt_first", "dfr_steps", "dfr_held_out"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"train.{name}: {getattr(self, name)} is no share between 0 and 1")
        if self.jtt_weight < 1:
            raise InputError(f"train.jtt_weight: {self.jtt_weight} is less than 1, which counts errors as others")
        if not self.packing and self.examples_per_step not in (None, self.batch_size):
            raise InputError(
                f"train.examples_per_step: {self.examples_per_step}, but rows that do not pack hold one example each, "
                f"{self.batch_size} in all (train.batch_size); leave it null"
            )


@dataclass(frozen=True, kw_only=True)
class RehearsalConfig:
    """Texts or conversations trained on beside the task, so that the model keeps what it could before."""

    # Files: JSON Lines (.jsonl) whose rows have `messages` (a conversation) or `text`; any other file is plain text.
    files: tuple[str, ...] = ()
    # Rows of them in each optimizer step, each as full as packing makes it, beside the train.batch_size rows of the
    # task.
    rows: int = 4
    # Weight of their cross-entropy, the mean over their target tokens: all of a text, the assistant's of a
    # conversation. More keeps a small model from learning the task.
    weight: float = 0.1
    # Weight of KL(base || model), the mean over the same tokens; the base is the model without its adapter.
    kl: float = 0.0

    @property
    def rows_per_step(self) -> int:
        """Rows of rehearsal in each step: none where there are no files."""
        return self.rows if self.files else 0

    def check(self) -> None:
        """Raises InputError for less than one row, weights below 0, or files that weigh nothing."""
        if self.rows < 1:
            raise InputError(f"rehearsal.rows: {self.rows} is less than 1; leave rehearsal.files empty for none")
        for name in ("weight", "kl"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"rehearsal.{name}: {getattr(self, name)} is not a number from 0 up")
        if self.files and not self.weight and not self.kl:
            raise InputError("rehearsal.weight and rehearsal.kl are both 0, so that the files teach nothing; raise one")
