"""Tokenizers: trained on a task's own text, or loaded from a Hugging Face folder or hub id."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fit_jax.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Trains a byte-level BPE tokenizer; the same texts in the same order give the same tokenizer.

    Args:
        texts: What it will encode: prompts with their answers.
        vocab_size: Most tokens, special ones and the 256 bytes included.

    Raises:
        InputError: The vocabulary cannot hold the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    smallest = len(pre_tokenizers.ByteLevel.alphabet()) + 2
    if vocab_size < smallest:
        raise InputError(f"tokenizer.vocab_size {vocab_size} is too small for byte-level BPE; take at least {smallest}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _fast_class()(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)


def load_tokenizer(path: str | Path) -> "PreTrainedTokenizerFast":
    """Loads a tokenizer from a folder of Hugging Face, SentencePiece or tiktoken files, or by hub id.

    Raises:
        InputError: No such folder or model, the hub cannot be reached, or the files hold no tokenizer.
    """
    folder = Path(path)
    try:
        if _is_plain_fast(folder):
            return _fast_class().from_pretrained(str(folder))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(path))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"tokenizer {path}: {first}") from error


def save_tokenizer(tokenizer: "PreTrainedTokenizerFast", folder: str | Path) -> None:
    """Writes the tokenizer's files so that `load_tokenizer` and `AutoTokenizer` read them back."""
    tokenizer.save_pretrained(str(folder))


def _fast_class() -> type["PreTrainedTokenizerFast"]:
    # This module alone imports in under a second; `AutoTokenizer` brings torch along where it is installed.
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast


def _is_plain_fast(folder: Path) -> bool:
    """Whether the folder holds a tokenizer of no model-specific class, which needs no `AutoTokenizer`."""
    config = folder / "tokenizer_config.json"
    if not (folder / "tokenizer.json").is_file() or not config.is_file():
        return False
    return json.loads(config.read_text("utf-8")).get("tokenizer_class") in (
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    )
