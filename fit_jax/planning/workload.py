"""What a config asks of the machine: shapes alone, without data or weights."""

from dataclasses import dataclass, replace

from fit_jax.config import Config, MeshConfig, OptimizerConfig, RehearsalConfig, TokenizerConfig
from fit_jax.errors import InputError
from fit_jax.hub import local_folder
from fit_jax.methods import compares_candidates
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import CONFIG_FILES
from fit_jax.runs.resolve import ResolvedConfig, resolve

# Target positions of a row where the config leaves them to the data: as many as rows of short, packed examples have.
TOKENS_PER_TARGET = 32


@dataclass(frozen=True)
class Workload:
    """The shapes of a run's train step and of its evaluation step.

    Attributes:
        model: With nothing left open.
        lora: The adapters.
        optimizer: What an update is.
        mesh: Sizes of the mesh axes.
        rows: B of the global batch.
        sequence_length: T.
        targets: C.
        accumulate: Microbatches of a step.
        evaluation_rows: B of an evaluation batch.
        steps: Optimizer steps of the run; None where they follow from the data.
        rehearsal: What is rehearsed; of its rows nearly every token is a target.
        expert_balance: Weight of the loss that balances experts.
        notes: What was assumed.
    """

    model: DecoderConfig
    lora: LoraConfig
    optimizer: OptimizerConfig
    mesh: MeshConfig
    rows: int
    sequence_length: int
    targets: int
    accumulate: int
    evaluation_rows: int
    steps: int | None
    rehearsal: RehearsalConfig
    expert_balance: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def rehearsal_rows(self) -> int:
        """Rows of rehearsal in a step."""
        return self.rehearsal.rows_per_step


def workload(config: Config, slices: int = 1) -> Workload:
    """The workload of a run on `slices` slices.

    Where the pretrained model's config is neither local nor available from the hub, its shape is the one written under
    `model`, and the notes say so.

    Raises:
        InputError: The pretrained model's shape is not known, or what the config names is damaged or does not fit
            together; a method of another package is broken.
    """
    resolved, notes = _resolved(config)
    tokens = 0
    if resolved.model.vocab_size is None:
        tokens, note = _vocabulary(resolved.tokenizer)
        notes.append(note)
    targets = config.train.targets_per_row
    if targets is None:
        targets = max(config.train.sequence_length // TOKENS_PER_TARGET, 1)
        notes.append(f"train.targets_per_row is null: planned with {targets}, one per {TOKENS_PER_TARGET} tokens")
    if compares_candidates(config.train.method):
        notes.append(
            f"train.method {config.train.method}: planned with the step of fit; a row answers every candidate of its "
            "examples, so it holds fewer of them and has more targets (train.targets_per_row)"
        )
    mesh = config.mesh if slices == 1 else replace(config.mesh, slices=slices)
    return Workload(
        model=resolved.decoder(tokens),
        lora=resolved.lora,
        optimizer=config.optimizer,
        mesh=mesh,
        rows=config.train.batch_size,
        sequence_length=config.train.sequence_length,
        targets=targets,
        accumulate=config.train.accumulate,
        evaluation_rows=config.evaluation.batch_size,
        steps=config.train.steps,
        rehearsal=config.rehearsal,
        expert_balance=config.train.expert_balance,
        notes=tuple(notes),
    )


def _resolved(config: Config) -> tuple[ResolvedConfig, list[str]]:
    """The config resolved as a run resolves it, from the written shape where the pretrained model is not available."""
    model = config.model
    if model.pretrained is None:
        return resolve(config), []
    try:
        local_folder(model.pretrained, CONFIG_FILES, "model")
    except InputError as error:
        if model.vocab_size is None:
            raise InputError(f"{error}; or write the model's shape under `model`, vocab_size included") from error
        note = f"model.pretrained {model.pretrained} is not available: planned with the shape written under `model`"
        return resolve(config, pretrained_found=False), [note]
    return resolve(config), []


def _vocabulary(tokenizer: TokenizerConfig) -> tuple[int, str]:
    """Tokens of the tokenizer that gives a model its vocabulary, and a line that says which."""
    if tokenizer.path is None:
        size = tokenizer.vocab_size
        return size, f"vocabulary: tokenizer.vocab_size {size}, as model.vocab_size is null"
    from fit_jax.focus.tokenizers import load_tokenizer

    size = len(load_tokenizer(tokenizer.path))
    return size, f"vocabulary: the {size} tokens of {tokenizer.path}, as model.vocab_size is null"
