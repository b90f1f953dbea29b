"""What a config comes to: the shapes and kinds that the folders it names settle, and whether a mesh divides them.

The one resolution for training, evaluation, steering, experiments and plans. It reads configs alone, never a model's
weights.
"""

from dataclasses import dataclass, replace

from jax.sharding import Mesh

from fit_jax.config import Config, TokenizerConfig
from fit_jax.errors import InputError
from fit_jax.foreign import named
from fit_jax.models.adapter_config import resolve_lora
from fit_jax.models.config import DecoderConfig, ModelConfig, with_vocabulary
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import resolve_model
from fit_jax.parallel.config import CONTEXT
from fit_jax.parallel.sharding import row_shards


@dataclass(frozen=True)
class ResolvedConfig:
    """A config and what follows from the folders it names.

    Attributes:
        asked: As the user gave it.
        model: The pretrained model's shape and switches with the run's own choices; as asked where none is named.
        lora: Rank, alpha, targets and kind of the adapter that training goes on from; as asked where none is named.
        tokenizer: Its path is the pretrained model's where none is named.
    """

    asked: Config
    model: ModelConfig
    lora: LoraConfig
    tokenizer: TokenizerConfig

    def decoder(self, tokens: int) -> DecoderConfig:
        """The model with a vocabulary that holds a tokenizer of so many tokens.

        Raises:
            InputError: The model's vocabulary is smaller.
        """
        if self.model.vocab_size is not None and self.model.vocab_size < tokens:
            raise InputError(
                f"model.vocab_size {self.model.vocab_size} is smaller than the tokenizer's {tokens}; "
                "leave it null, or name the tokenizer that belongs to the model"
            )
        return with_vocabulary(self.model, tokens)


def resolve(config: Config, pretrained_found: bool = True) -> ResolvedConfig:
    """The config with what its pretrained model and its adapter settle.

    Args:
        config: As the user gave it.
        pretrained_found: Whether the pretrained model's configs are there to be read; else its shape is the one written
            under `model`.

    Raises:
        InputError: There is no such model or adapter, it is damaged or of a kind that is not supported, or model and
            adapter do not go together.
    """
    adapter = config.lora.adapter
    if adapter is not None and config.model.pretrained is None:
        raise InputError(
            f"lora.adapter {named(adapter)}: was made for a pretrained model; name that as model.pretrained"
        )
    model = resolve_model(config.model) if pretrained_found else config.model
    model.check()
    if config.train.expert_balance and not model.experts:
        raise InputError("train.expert_balance: the model has no experts; set it to 0")
    lora = resolve_lora(config.lora, model)
    lora.check()
    tokenizer = config.tokenizer
    if tokenizer.path is None:
        tokenizer = replace(tokenizer, path=model.pretrained)
    return ResolvedConfig(config, model, lora, tokenizer)


def check_mesh(config: Config, mesh: Mesh) -> None:
    """Checks that the mesh divides a training batch: rows among microbatches and devices, tokens among devices.

    Raises:
        InputError: It does not.
    """
    train, shards, context = config.train, row_shards(mesh), mesh.shape[CONTEXT]
    parts = train.accumulate * shards
    rows = {"train.batch_size": train.batch_size, "rehearsal.rows": config.rehearsal.rows_per_step}
    for name, count in rows.items():
        if count % parts:
            raise InputError(
                f"{name}: {count} rows do not divide into {train.accumulate} microbatch(es) over "
                f"{shards} parts of the mesh (mesh.data x mesh.fsdp x mesh.expert); take a multiple of {parts}"
            )
    if train.sequence_length % context:
        raise InputError(
            f"train.sequence_length: {train.sequence_length} tokens do not divide among {context} parts of the mesh "
            f"(mesh.context); take a multiple of {context}"
        )
