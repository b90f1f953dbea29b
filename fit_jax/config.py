"""What a run is: one small frozen dataclass per concern; every field has a one-line doc.

A run is a `Config` read from YAML plus `--section.field value` overrides; it is saved with the run and can be run
again. Defaults are the demo's. Values that the paper does not state are fields here, never constants. The sections on
training stand in `train_config`, those of `models` and `parallel`, which know nothing of the rest, with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from fit_jax.config_files import parse_config
from fit_jax.errors import InputError
from fit_jax.files import check_run_folder
from fit_jax.focus.spec import held_out_specs
from fit_jax.foreign import named, printable
from fit_jax.models.config import ModelConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.config import MeshConfig
from fit_jax.train_config import OptimizerConfig, RehearsalConfig, TrainConfig

# The task that is several.
MIXTURE = "mixture"
# Largest sizes that a config may ask for: far beyond any use, and below what overflows later.
_MOST = {
    "train.sequence_length": 2**20,
    "train.batch_size": 2**20,
    "rehearsal.rows": 2**20,
    "evaluation.batch_size": 2**20,
    "evaluation.written_tokens": 2**20,
    "tokenizer.vocab_size": 2**24,  # the library ends the process where it cannot get the memory
}
# Fields of a description of one's own data that no config has.
_OF_DESCRIPTIONS = {"instruction", "input", "core", "candidates", "features"}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """One data set and how its spurious correlation is set (paper, section 4)."""

    # Task registry name: demo, ss, smnli, shans, bbq, bbq_nlg or jsonl (your own data); one of
    # another package; or mixture, of the tasks in `parts`.
    name: str = "demo"
    # YAML that describes your own data; for the task `jsonl`.
    file: str | None = None
    # Seed of the data: which examples there are, in which split and with which values; null means the run's seed.
    seed: int | None = None
    # Folder of official files; the environment variable FIT_JAX_DATA is used where this is null.
    data_dir: str | None = None
    # Where examples come from: `files` (official files), `hub` (datasets) or `array_record` (built by fit_jax.data).
    source: Literal["files", "hub", "array_record"] = "files"
    # Spurious features to use, all drawn together: each with its own rho, and independent of the others given the
    # label. `ss` has keyword and tag, `smnli` genre and wording, own data those of its description. Empty means the
    # first; of own data the first, with the others as they come.
    features: tuple[str, ...] = ()
    # rho of the training, validation and iid splits; null means 1 / number of labels (S independent of Y).
    rho_train: float | None = None
    # The same for single ones of several `features`, in place of `rho_train`.
    rho_train_of: dict[str, float] = field(default_factory=dict)
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


@dataclass(frozen=True, kw_only=True)
class PartConfig(DataConfig):
    """A task of a mixture, with the fields of a task of its own."""

    # Its share of the training examples, relative to those of the other parts; 0 holds the task out: it is evaluated
    # and never trained on.
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TaskConfig(DataConfig):
    """The data set and how its spurious correlation is set (paper, section 4)."""

    # Keep the validation and test examples in the run folder, which then can be evaluated where the data are not;
    # more than 256 MiB of them are not kept.
    keep_examples: bool = True
    # The tasks of the task `mixture`, each with the fields of a task, and its `weight`.
    parts: tuple[PartConfig, ...] = ()

    @property
    def each(self) -> tuple["TaskConfig", ...]:
        """The tasks of a mixture, or the task itself."""
        named = [f.name for f in fields(DataConfig)]
        return tuple(TaskConfig(**{name: getattr(part, name) for name in named}) for part in self.parts) or (self,)

    def check(self) -> None:
        """Raises InputError where a mixture has no part to train on, or fields that belong to its parts."""
        if self.name != MIXTURE:
            if self.parts:
                raise InputError(f"task.parts: belong to the task {MIXTURE}, not to {self.name}; leave one of them out")
            return
        plain = DataConfig(name=MIXTURE)
        if own := [f.name for f in fields(DataConfig) if getattr(self, f.name) != getattr(plain, f.name)]:
            raise InputError(f"task.{own[0]}: each part of a {MIXTURE} has its own; set it in task.parts")
        for number, part in enumerate(self.parts):
            if not 0 <= part.weight < float("inf"):
                raise InputError(f"task.parts.{number}.weight: {part.weight}; a weight is a number from 0 up")
            if part.name == MIXTURE:
                raise InputError(f"task.parts.{number}.name: a {MIXTURE} is no part of another; name its tasks instead")
        if not any(part.weight for part in self.parts):
            raise InputError("task.parts: no task has a weight above 0; name at least one to train on")

    def drawn_by(self, seed: int) -> int:
        """The seed of the data of a run with this seed."""
        return seed if self.seed is None else self.seed


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
    # Training paraphrases of each focus type, taken evenly from all there are; null means all.
    paraphrases: int | None = None
    # Share of the training examples whose text holds a decoy: a focus instruction, in a training paraphrase, that is
    # not to be obeyed.
    decoy_share: float = 0.0
    # Share of the instructions about a spurious feature that name others of the example's features too, to be ignored:
    # `focus(keyword) & ignore(tag)`. 0 names one at a time.
    combinations: float = 0.0
    # Instructions of that kind that training never shows; they are evaluated apart.
    held_out: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InputError where a share is none, no paraphrase is left, or a held-out instruction is malformed."""
        if self.paraphrases is not None and self.paraphrases < 1:
            raise InputError(f"focus.paraphrases: {self.paraphrases}; a focus type needs at least one")
        for name in ("decoy_share", "combinations"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise InputError(f"focus.{name}: {share} is no share from 0 to 1")
        held_out_specs(self.held_out)


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
class EvaluationConfig:
    """What is measured after training (paper, section 4)."""

    # Seed of what is asked: the paraphrases and decoys; null means the run's seed. Which validation chooses the
    # checkpoint by is part of the training.
    seed: int | None = None
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
    # Files of texts or conversations, as those of `rehearsal.files`, that are only measured: the report shows their
    # perplexity before and after tuning.
    texts: tuple[str, ...] = ()
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
    """A run: data, prompts, model, mesh, training, rehearsal and evaluation."""

    # Folder of the run: config, metrics, checkpoints, report. Starting again with the same folder resumes.
    run_dir: str = "runs/demo"
    # Seed of all that is drawn: initial weights, order, focus instructions and dropout, and, where task.seed and
    # evaluation.seed are null, the data and the paraphrases that are asked.
    seed: int = 0
    task: TaskConfig = field(default_factory=TaskConfig)
    focus: FocusConfig = field(default_factory=FocusConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    rehearsal: RehearsalConfig = field(default_factory=RehearsalConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def evaluation_seed(self) -> int:
        """The seed of what is asked in an evaluation."""
        return self.seed if self.evaluation.seed is None else self.evaluation.seed

    @staticmethod
    def check_file(mapping: Mapping[str, object], path: Path, section: str = "") -> None:
        """Raises InputError for a file that describes one's own data (`fit_jax.data.own_data`) and is no config.

        `section` leads to the task of what the file was taken for, as in `run.`.
        """
        if len(_OF_DESCRIPTIONS & {*mapping}) > 1:
            raise InputError(
                f"config {named(path)}: is a description of one's own data and no config; set {section}task.name to "
                f"jsonl and {section}task.file to it",
                usage=f"--{section}task.name jsonl --{section}task.file {printable(str(path))}",
            )

    def check(self) -> None:
        """Raises InputError for a seed that JAX does not take, a folder that cannot be, or far too large a size.

        Also where rehearsal is to be held against a base that is not there, or experts balanced by a router that stays.
        """
        seeds = {"seed": self.seed, "task.seed": self.task.seed, "evaluation.seed": self.evaluation.seed}
        seeds |= {f"task.parts.{number}.seed": part.seed for number, part in enumerate(self.task.parts)}
        for name, seed in seeds.items():
            if seed is not None and not 0 <= seed < 2**32:
                raise InputError(f"{name}: {seed} is not from 0 to {2**32 - 1}")
        check_run_folder(self.run_dir, "run_dir")
        for name, most in _MOST.items():
            section, field_name = name.split(".")
            size = getattr(getattr(self, section), field_name)
            if size is not None and size > most:
                raise InputError(f"{name}: {size} is more than {most}, the most that is allowed")
        adapted = self.lora.rank > 0 or self.lora.adapter is not None
        if self.train.expert_balance and adapted:
            raise InputError(
                f"train.expert_balance: {self.train.expert_balance}, but with adapters (lora) the router stays as it "
                "is; set lora.rank 0, or train.expert_balance 0"
            )
        if self.rehearsal.files and self.rehearsal.kl and not adapted:
            raise InputError(
                f"rehearsal.kl: {self.rehearsal.kl}, but without an adapter (lora.rank 0) every weight moves and no "
                "base is left to compare with; set lora.rank, or rehearsal.kl 0"
            )


def load_config(arguments: list[str]) -> Config:
    """Parses `--config FILE` and `--section.field value` overrides into a `Config`.

    Args:
        arguments: The command line.

    Raises:
        InputError: Unknown field, wrong type or value, unreadable or malformed file; the message names the field.
    """
    return parse_config(Config, arguments)
