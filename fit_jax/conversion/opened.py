"""Models opened for conversion: those of runs, imported ones and those of Hugging Face folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flax import nnx

from fit_jax.errors import InputError
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.foreign import Fields, named
from fit_jax.models.config import ModelConfig
from fit_jax.models.decoder import Decoder, Params
from fit_jax.models.families import config_to_hf
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import Pretrained, open_pretrained, resolve_pretrained
from fit_jax.models.tensor_files import DTYPES
from fit_jax.models.weights import abstract_parameters, load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The dtypes that a Hugging Face config names, as NumPy knows them.
STORED = {"float32": DTYPES["F32"], "float16": DTYPES["F16"], "bfloat16": DTYPES["BF16"]}


class Loaded(NamedTuple):
    """A model in memory and what goes with it.

    Attributes:
        graphdef: Its structure.
        params: Its states.
        hf: The Hugging Face config to write with it.
        files: Folder with its generation config or model card, if any.
        tokenizer: Its tokenizer; None where the source has none.
        lora: Its adapters.
        prompts: How a run's model is asked; None of a model that is no run's.
    """

    graphdef: nnx.GraphDef
    params: Params
    hf: Mapping[str, Any]
    files: Path
    tokenizer: "PreTrainedTokenizerBase | None"
    lora: LoraConfig
    prompts: PromptEncoder | None = None

    @property
    def decoder(self) -> Decoder:
        """The model put together."""
        return nnx.merge(self.graphdef, *self.params)


def open_model(source: str, trust_code: bool = False) -> Loaded:
    """The model of a run's best checkpoint, an imported model, or a Hugging Face one.

    Raises:
        InputError: It is none of these, or is damaged.
    """
    from fit_jax.runs.run_folder import CONFIG

    if not (Path(source) / CONFIG).is_file():
        found = open_pretrained(source)
        own = stored_dtype(found)
        return load_found(
            ModelConfig(pretrained=source, param_dtype="bfloat16" if own == "bfloat16" else "float32"), found
        )
    from fit_jax.runs.run import load_model, open_run

    run = open_run(source, trust_code)
    model = load_model(run)
    tokenizer = run.encoder.tokenizer
    if run.model.pretrained is not None:
        hf = open_pretrained(run.model.pretrained).hf
    else:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        tokens = {name: getattr(tokenizer, name) for name in names}
        hf = config_to_hf(run.model, max_positions=run.config.train.sequence_length, tokens=tokens)
        hf["dtype"] = run.model.param_dtype
    return Loaded(model.graphdef, model.params, hf, run.folder, tokenizer, run.lora, run.encoder)


def load_found(model: ModelConfig, found: Pretrained) -> Loaded:
    """The model of a folder, in the form that a config asks for.

    Raises:
        InputError: It is damaged, or its tokenizer has more tokens than its embeddings.
    """
    from fit_jax.focus.tokenizers import load_tokenizer

    model = resolve_pretrained(model, str(found.folder))
    graphdef, shapes = abstract_parameters(model)
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    tokenizer = load_tokenizer(found.folder) if any((found.folder / n).is_file() for n in names) else None
    if tokenizer is not None and len(tokenizer) > model.vocab_size:
        raise InputError(
            f"{named(found.folder)}: its tokenizer has {len(tokenizer)} tokens, its embeddings {model.vocab_size}; "
            "put the tokenizer there that belongs to the model"
        )
    return Loaded(graphdef, (load_weights(model, shapes),), found.hf, found.folder, tokenizer, LoraConfig())


def stored_dtype(found: Pretrained) -> str:
    """The dtype that a model's Hugging Face config says its weights have."""
    return dtype_of(found.hf, named(found.folder))


def dtype_of(hf: Mapping[str, object], where: str) -> str:
    """The dtype that a Hugging Face config says its weights have; float32 where it says none."""
    fields = Fields(hf, where)
    return fields.choice("dtype" if fields.has("dtype") else "torch_dtype", STORED, "float32")
