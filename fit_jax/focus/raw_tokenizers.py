"""Tokenizer files as model authors publish them, without the configuration that `AutoTokenizer` goes by."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fit_jax.errors import InputError
from fit_jax.foreign import check_regular, exists, listed, named, read_bytes, read_text, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONFIGURED = ("tokenizer.json", "tokenizer_config.json", "config.json")
_PATTERNS = ("vocab.json", "*.model*", "tok*.bin")
_LONGEST_TEMPLATE = 1 << 20
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")
# A tiktoken file holds no control tokens; Llama 3 is known by its number of ranks and continues with these.
_LLAMA3_RANKS = 128000
_LLAMA3_CONTROL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(4)),
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)),
)


def find_raw(path: Path) -> Path | None:
    """The vocabulary file at `path`, a file itself or a folder without a configuration; None where there is none.

    Raises:
        InputError: The folder holds several of one kind.
    """
    if path.is_file():
        return path
    if any(exists(path / name) for name in _CONFIGURED):
        return None
    for pattern in _PATTERNS:
        files = sorted(path.glob(pattern))
        if len(files) > 1:
            names = listed((shown(f.name[:40]) for f in files), 2)
            raise InputError(f"tokenizer {named(path)}: holds {names}; name one of these files")
        if files:
            return files[0]
    return None


def load_raw(file: Path) -> "PreTrainedTokenizerFast":
    """Loads GPT-2's `vocab.json` with `merges.txt`, a SentencePiece or tiktoken model, or llama2.c's `tokenizer.bin`.

    A single Jinja file in the file's folder, or in one below it, becomes the chat template.
    """
    check_regular(file)
    with file.open("rb") as opened:
        head = opened.read(256)
    if file.name == "vocab.json":
        from transformers import GPT2Tokenizer

        tokenizer = GPT2Tokenizer.from_pretrained(str(file.parent))
    elif file.suffix == ".bin":
        tokenizer = _from_llama2c(file)
    elif _TIKTOKEN_LINE.match(head):
        tokenizer = _from_tiktoken(file)
    else:
        from transformers import LlamaTokenizer

        tokenizer = _load_as("tokenizer.model", file, LlamaTokenizer, add_bos_token=True)
    tokenizer.name_or_path = str(file.parent)
    templates = sorted(file.parent.rglob("*.jinja"))
    if len(templates) == 1:
        tokenizer.chat_template = read_text(templates[0], most=_LONGEST_TEMPLATE)
    return tokenizer


def _load_as(name: str, file: Path, cls: type, **options: object) -> "PreTrainedTokenizerFast":
    """`cls.from_pretrained` on a folder in which the file bears the name that transformers expects."""
    with TemporaryDirectory() as folder:
        (Path(folder) / name).symlink_to(file.resolve())
        return cls.from_pretrained(folder, **options)


def _from_tiktoken(file: Path) -> "PreTrainedTokenizerFast":
    from transformers.tokenization_utils_tokenizers import PreTrainedTokenizerFast

    options = {}
    if read_bytes(file).count(b"\n") == _LLAMA3_RANKS:
        options = {
            "extra_special_tokens": list(_LLAMA3_CONTROL),
            "bos_token": _LLAMA3_CONTROL[0],
            "eos_token": _LLAMA3_CONTROL[1],
            "add_bos_token": True,
        }
    return _load_as("tiktoken.model", file, PreTrainedTokenizerFast, **options)


def _from_llama2c(file: Path) -> "PreTrainedTokenizerFast":
    from transformers import LlamaTokenizer

    pieces = list(_llama2c_pieces(file))
    vocab = {piece: index for index, piece in enumerate(pieces)}
    # Pieces are listed in the order in which they were merged, as in the SentencePiece model this file was made from.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    return LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)


def _llama2c_pieces(file: Path) -> Iterator[str]:
    """The pieces of llama2.c's format: int32 longest length, then of each float32 score, int32 length and bytes.

    Raises:
        InputError: A length goes beyond the file.
    """
    control = {"\n<s>\n": "<s>", "\n</s>\n": "</s>"}
    data = read_bytes(file)
    at = 4
    while at < len(data):
        length = struct.unpack_from("<fi", data, at)[1] if at + 8 <= len(data) else -1
        at += 8
        if not 0 <= length <= len(data) - at:
            raise InputError(f"tokenizer {named(file)}: is cut off or corrupt at byte {at - 8}; fetch it again")
        piece = data[at : at + length].decode("utf-8")
        at += length
        yield control.get(piece) or piece.replace(" ", "▁")
