"""What a config asks of the machine: shapes alone, without data, tokenizer or weights."""

import json
from dataclasses import dataclass, replace

from fit_jax.config import Config, MeshConfig
from fit_jax.errors import InputError
from fit_jax.hub import local_folder
from fit_jax.models.config import DecoderConfig, LoraConfig, ModelConfig, with_vocabulary
from fit_jax.models.families import config_from_hf

# Fields of `ModelConfig` that are the run's choice, whatever the pretrained model's shape.
RUN_SETTINGS = ("pretrained", "dropout", "param_dtype", "compute_dtype", "quantize", "remat", "attention")

# Target positions of a row where the config leaves them to the data: as many as rows of short, packed examples have.
TOKENS_PER_TARGET = 32


@dataclass(frozen=True)
class Workload:
    """The shapes of a run's train step and of its evaluation step.

    Attributes:
        model: With nothing left open.
        lora: The adapters.
        mesh: Sizes of the mesh axes.
        rows: B of the global batch.
        tokens: T.
        targets: C.
        accumulate: Microbatches of a step.
        evaluation_rows: B of an evaluation batch.
        trees: Whether the rows hold items that branch.
        steps: Optimizer steps of the run; None where they follow from the data.
        notes: What was assumed.
    """

    model: DecoderConfig
    lora: LoraConfig
    mesh: MeshConfig
    rows: int
    tokens: int
    targets: int
    accumulate: int
    evaluation_rows: int
    trees: bool
    steps: int | None
    notes: tuple[str, ...] = ()


def workload(config: Config, slices: int = 1) -> Workload:
    """The workload of a run on `slices` slices.

    Raises:
        InputError: The vocabulary or the pretrained model's shape is not known.
    """
    notes = []
    model = _model_shape(config.model, notes)
    if model.vocab_size is None:
        notes.append(f"vocabulary: tokenizer.vocab_size {config.tokenizer.vocab_size}, as model.vocab_size is null")
    targets = config.train.targets_per_row
    if targets is None:
        targets = max(config.train.sequence_length // TOKENS_PER_TARGET, 1)
        notes.append(f"train.targets_per_row is null: planned with {targets}, one per {TOKENS_PER_TARGET} tokens")
    mesh = config.mesh if slices == 1 else replace(config.mesh, slices=slices)
    return Workload(
        model=with_vocabulary(model, config.tokenizer.vocab_size),
        lora=config.lora,
        mesh=mesh,
        rows=config.train.batch_size,
        tokens=config.train.sequence_length,
        targets=targets,
        accumulate=config.train.accumulate,
        evaluation_rows=config.evaluation.batch_size,
        trees=config.focus.branches > 1,
        steps=config.train.steps,
        notes=tuple(notes),
    )


def check_rows(load: Workload, row_shards: int) -> None:
    """Raises `InputError` unless the global batch splits evenly over microbatches and devices."""
    if load.rows % (load.accumulate * row_shards):
        raise InputError(
            f"train.batch_size {load.rows} is no multiple of train.accumulate {load.accumulate} x "
            f"{row_shards} (mesh.data x mesh.fsdp); use a multiple of {load.accumulate * row_shards}"
        )


def _model_shape(model: ModelConfig, notes: list[str]) -> ModelConfig:
    """The shape of the pretrained model where its config.json can be read, else the one written in the config."""
    if model.pretrained is None:
        return model
    try:
        path = local_folder(model.pretrained, ["config.json"], "model") / "config.json"
        shape = config_from_hf(json.loads(path.read_text(encoding="utf-8")), str(path))
    except InputError as error:
        if model.vocab_size is None:
            raise InputError(f"{error}; or write the model's shape under `model`, vocab_size included") from error
        notes.append(
            f"model.pretrained {model.pretrained} is not at hand: planned with the shape written under `model`"
        )
        return model
    except (OSError, ValueError) as error:
        raise InputError(f"model.pretrained: {path} is no readable JSON ({error}); fetch it again") from error
    return replace(shape, **{name: getattr(model, name) for name in RUN_SETTINGS})
