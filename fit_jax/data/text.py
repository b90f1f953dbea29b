"""Plain operations on source text: comparing, joining treebank tokens, inserting a keyword."""

import hashlib
import re

_NOT_WORD = re.compile(r"[\W_]+")
_TREEBANK = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
_JOINED_LEFT = re.compile(r" (?=(?:[,.;:!?%)\]}]|'(?:s|m|d|re|ve|ll)\b|'(?= |$)|n't\b))", re.IGNORECASE)
_JOINED_RIGHT = re.compile(r"(?<=[(\[{$#]) ")
_CLAUSE_START = re.compile(
    r"(?<=[,;:.!?]) (?=\S)| -- | (?=(?:and|but|or|because|although|though|while|when|which|who|if|so)\b)"
)


def text_key(*texts: str) -> int:
    """A 63-bit key that texts share when they have the same letters and digits in the same order.

    Case, spacing and punctuation do not count, so a treebank-tokenised copy of a sentence has the sentence's key.
    """
    bare = "\x1f".join(_NOT_WORD.sub("", text).casefold() for text in texts)
    return int.from_bytes(hashlib.blake2b(bare.encode(), digest_size=8).digest(), "little") >> 1


def detokenise(tokens: str) -> str:
    """Treebank tokens, joined by spaces, as a person would write them."""
    words = [_TREEBANK.get(word, word.replace("\\/", "/").replace("\\*", "*")) for word in tokens.split()]
    text = " ".join(words)
    text = text.replace("`` ", '"').replace("``", '"').replace(" ''", '"').replace("''", '"').replace("` ", "'")
    return _JOINED_RIGHT.sub("", _JOINED_LEFT.sub("", text))


def insert_keyword(text: str, keyword: str, place: float) -> str:
    """Puts the keyword at a clause boundary of the text.

    Args:
        text: The text; its start and its end are boundaries too.
        keyword: The word, set between spaces.
        place: A number in [0, 1) that chooses among the boundaries.
    """
    inner = [match.start() for match in _CLAUSE_START.finditer(text)]
    ending = len(text.rstrip(".!?\"') "))
    boundaries = sorted({0, ending, *(at for at in inner if at < ending)})
    at = boundaries[int(place * len(boundaries))]
    return f"{text[:at]} {keyword} {text[at:].lstrip()}".strip() if at < ending else f"{text[:at]} {keyword}{text[at:]}"
