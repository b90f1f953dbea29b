"""What a run is: one small frozen dataclass per concern; every field has a one-line doc.

A run is a `Config` read from YAML plus `--section.field value` overrides; it is saved with the run and can be run
again. Defaults are the demo's. Values that the paper does not state are fields here, never constants. The sections of
`models` and `parallel`, which know nothing of the rest, stand with them.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fit_jax.config_files import parse_config
from fit_jax.errors import InputError
from fit_jax.files import check_run_folder
from fit_jax.foreign import shown
from fit_jax.models.config import LoraConfig, ModelConfig
from fit_jax.parallel.config import MeshConfig
from fit_jax.plugins import plugin_names

# The methods of this package that train: each names its module in `fit_jax.methods`.
TrainedMethod = Literal["fit", "sft_y", "sft_y_focus", "poe", "group_dro", "group_balanced", "jtt", "dfr"]

# Largest sizes that a config may ask for: far beyond any use, and below what overflows later.
_MOST = {
    "train.sequence_length": 2**20,
    "train.batch_size": 2**20,
    "evaluation.written_tokens": 2**20,
}


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The data set and how its spurious correlation is set (paper, section 4)."""

    # Task registry name: demo, ss, smnli, shans, bbq, bbq_nlg or jsonl (your own data); or one of another package.
    name: str = "demo"
    # YAML that describes your own data; for the task `jsonl`.
    file: str | None = None
    # Folder of official files; the environment variable FIT_JAX_DATA is used where this is null.
    data_dir: str | None = None
    # Where examples come from: `files` (official files), `hub` (datasets) or `array_record` (built by fit_jax.data).
    source: Literal["files", "hub", "array_record"] = "files"
    # rho of the training, validation and iid splits; null means 1 / number of labels (S independent of Y).
    rho_train: float | None = None
    # rho of the split `high`, and of `flipped` for the swapped label.
    rho_high: float = 0.9
    # rho of the split `low`.
    rho_low: float = 0.1
    # Most training examples; null means the paper's size, or as many as the data allow.
    train_examples: int | None = None
    # Most validation examples; null as above.
    validation_examples: int | None = None
    # Most examples of each test split; null as above.
    test_examples: int | None = None
    # Train on the labelled phrases of the treebank too (ss).
    phrases: bool = False
    # BBQ categories to use (bbq, bbq_nlg); empty means the nine that are not intersectional.
    categories: tuple[str, ...] = ()
    # What never stands on both sides of a split (bbq, bbq_nlg): a `template`, or a `context` with its two people.
    split_by: Literal["template", "context"] = "template"
    # What to do with a malformed row: `error` or `skip` (counted and shown).
    malformed: Literal["error", "skip"] = "error"
    # Keep the validation and test examples in the run folder, which then can be evaluated where the data are not;
    # more than 256 MiB of them are not kept.
    keep_examples: bool = True


@dataclass(frozen=True, kw_only=True)
class FocusConfig:
    """How focus instructions are drawn and where they stand (paper, section 3)."""

    # Relative weight of each focus type in training.
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "none": 1.0,
            "focus(core)": 1.0,
            "ignore(spurious)": 1.0,
            "focus(core) & ignore(spurious)": 1.0,
            "focus(spurious)": 1.0,
            "focus(spurious) & ignore(core)": 1.0,
        }
    )
    # The focus instruction stands `before` or `after` the input; `after` lets branches share the input's attention.
    place: Literal["after", "before"] = "after"
    # Focus instructions trained on per example and step, all sharing one pass over the input.
    branches: int = 6
    # Share of the training examples whose text holds a decoy: a focus instruction, in a training paraphrase, that is
    # not to be obeyed.
    decoy_share: float = 0.0

    def check(self) -> None:
        """Raises InputError where the share of decoys is none."""
        if not 0 <= self.decoy_share <= 1:
            raise InputError(f"focus.decoy_share: {self.decoy_share} is no share from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Text to token ids."""

    # Hugging Face tokenizer folder or hub id; null means the pretrained model's, or one trained on the task's own text.
    path: str | None = None
    # Vocabulary size of a tokenizer trained on the task's text.
    vocab_size: int = 1024
    # Prompt form: `auto` (the tokenizer's chat template where it has one) or `plain`.
    template: Literal["auto", "plain"] = "auto"


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
    # Weight decay in group_dro, in the place of optimizer.weight_decay; the method needs a strong one.
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
        for name in ("poe_weight", "group_step", "group_decay", "dfr_decay"):
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
class EvaluationConfig:
    """What is measured after training (paper, section 4)."""

    # Splits to evaluate; empty means every test split of the task.
    splits: tuple[str, ...] = ()
    # Paraphrase sets: `train` (seen in training), `heldout` (unseen combinations of words that training shows) and
    # `far` (other words, other names of the features, negations, indirect and long requests, other languages).
    paraphrases: tuple[Literal["train", "heldout", "far"], ...] = ("train", "heldout")
    # Paraphrases of each set that every question is asked in.
    paraphrases_each: int = 2
    # Let the model write its answers and match them to the candidates; null means where the task asks for it (bbq_nlg).
    written: bool | None = None
    # Most tokens of a written answer.
    written_tokens: int = 32
    # Candidates are found by a beam search over their tokens that keeps so many beginnings; null scores every
    # candidate, which is exact and faster unless there are very many. Answers that are written freely do not need it.
    beams: int | None = None
    # Ask `iid` and `low` (or else `flipped`) once more with decoys: focus instructions in the text of the input, in
    # held-out paraphrases, that are not to be obeyed.
    decoys: bool = False
    # Rows of one evaluation batch.
    batch_size: int = 32
    # Most examples of a split; null means all.
    examples: int | None = None
    # Most validation examples used during training; null means all.
    validation_examples: int | None = 256

    def check(self) -> None:
        """Raises InputError where no paraphrase set is named, or a size is less than 1."""
        for name in ("paraphrases_each", "batch_size", "examples", "validation_examples", "written_tokens", "beams"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise InputError(f"evaluation.{name}: {size} is less than 1")
        if not self.paraphrases:
            raise InputError("evaluation.paraphrases: names no paraphrase set; give some of train, heldout and far")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A run: data, prompts, model, mesh, training and evaluation."""

    # Folder of the run: config, metrics, checkpoints, report. Starting again with the same folder resumes.
    run_dir: str = "runs/demo"
    # Seed of everything drawn: splits, order, focus instructions, initial weights, dropout.
    seed: int = 0
    task: TaskConfig = field(default_factory=TaskConfig)
    focus: FocusConfig = field(default_factory=FocusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def check(self) -> None:
        """Raises InputError for a seed that JAX does not take, a folder that cannot be, or far too large a size."""
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed: {self.seed} is not from 0 to {2**32 - 1}")
        check_run_folder(self.run_dir, "run_dir")
        for name, most in _MOST.items():
            section, field_name = name.split(".")
            size = getattr(getattr(self, section), field_name)
            if size is not None and size > most:
                raise InputError(f"{name}: {size} is more than {most}, the most that is allowed")


def load_config(arguments: list[str]) -> Config:
    """Parses `--config FILE` and `--section.field value` overrides into a `Config`.

    Args:
        arguments: The command line.

    Raises:
        InputError: Unknown field, wrong type or value, unreadable or malformed file; the message names the field.
    """
    return parse_config(Config, arguments)
