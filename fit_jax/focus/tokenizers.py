"""Tokenizers: trained on a task's own text, or loaded from a Hugging Face folder or hub id."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fit_jax.errors import InputError, cannot_write
from fit_jax.focus.built_in_templates import built_in_template
from fit_jax.focus.guarded_tokenizer import GuardedTokenizer
from fit_jax.focus.raw_tokenizers import find_raw, load_raw
from fit_jax.foreign import check_regular, exists, named, read_object, shown, silent
from fit_jax.hub import local_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_REMEDY = "name a folder with a tokenizer.json"
PAD, EOS = "<pad>", "<eos>"
# What a tokenizer must be able to encode: words, a mark that normalisers change, another script.
_PROBE = "a b é ﬁ 中"
_FILES = ("tokenizer*", "*.model", "vocab.json", "merges.txt", "*_tokens*.json", "*.jinja", "config.json")


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
    trained = _fast_class()(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS)
    _keep_no_words(trained)
    return trained


def load_tokenizer(path: str | Path) -> "PreTrainedTokenizerFast":
    """Loads a tokenizer from a Hugging Face folder or hub id, or from the bare vocabulary files of a model.

    One without a chat template gets the one that its model is known to have been trained on.

    Raises:
        InputError: No such folder or model, the hub cannot be reached, or the files hold no tokenizer.
    """
    folder = local_folder(path, _FILES, "tokenizer")
    try:
        with silent():  # a panic in Rust writes its stack to standard error besides
            tokenizer = _load(folder)
            _keep_no_words(tokenizer)
            # transformers takes files it does not recognise for an empty vocabulary.
            empty = not tokenizer(_PROBE)["input_ids"]
            tokenizer.decode(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith("tokenizer ") else f"tokenizer {message}") from error
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # the readers underneath raise what they like; a panic in Rust is no `Exception`
        reason = shown(" ".join(str(error).split()))
        raise InputError(f"tokenizer {named(path)}: cannot be read ({reason}); {_REMEDY}") from error
    if empty:
        raise InputError(f"tokenizer {named(path)}: its vocabulary is empty; {_REMEDY}")
    tokenizer.chat_template = tokenizer.chat_template or built_in_template(str(path))
    if (backend := getattr(tokenizer, "_tokenizer", None)) is not None:  # tokenizers in Python have none
        tokenizer._tokenizer = GuardedTokenizer(backend, str(path))
    return tokenizer


def save_tokenizer(tokenizer: "PreTrainedTokenizerBase", folder: str | Path) -> None:
    """Writes the tokenizer's files so that `load_tokenizer` and `AutoTokenizer` read them back.

    Raises:
        InputError: They cannot be written.
    """
    try:
        tokenizer.save_pretrained(str(folder))
    except Exception as error:  # the writer underneath raises no OSError
        raise cannot_write(f"the tokenizer in {named(folder)}", error) from error


def _keep_no_words(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Lets every word be looked up again: the library's threads keep what they cached of a tokenizer that is gone.

    That grows by megabytes a tokenizer in a process that opens many; encoding without the cache takes a sixth longer.
    """
    model = getattr(getattr(tokenizer, "_tokenizer", None), "model", None)  # tokenizers in Python have none
    if (resize := getattr(model, "_resize_cache", None)) is not None:
        resize(0)


def _load(path: Path) -> "PreTrainedTokenizerFast":
    if path.is_dir():
        for pattern in _FILES:
            for file in path.glob(pattern):
                if not file.is_dir():
                    check_regular(file, _REMEDY)
    raw = find_raw(path)
    if raw is not None:
        return load_raw(raw)
    if _is_model_independent(path):
        return _fast_class().from_pretrained(str(path))
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)


def _fast_class() -> type["PreTrainedTokenizerFast"]:
    # This module alone imports in under a second; `AutoTokenizer` brings torch along where it is installed.
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast


def _is_model_independent(folder: Path) -> bool:
    """Whether the folder holds a tokenizer of no model's own class, which needs no `AutoTokenizer`."""
    config = folder / "tokenizer_config.json"
    if not exists(folder / "tokenizer.json") or not exists(config):
        return False
    return read_object(config, _REMEDY).values.get("tokenizer_class") in (
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
    )
