"""Pages: one HTML file that needs no other, runs no script but its own, and shows text of the data as text.

A page follows the reader's light or dark colours and fits a phone; words of the field are explained where a pointer or
the keyboard's focus stands on them, and all together at the end.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from fit_jax.foreign import printable

# Examples below which a share says more about chance than about the model, and the mark of such a share.
FEW = 30
FEW_MARK = "†"
FEW_NOTE = f"{FEW_MARK} of fewer than {FEW} examples: too few to mean something."
WORDS = {
    "iid": "The split drawn as the training examples were, from texts that training never showed.",
    "high": "The split in which the spurious feature mostly predicts the label y_s that it is tied to.",
    "low": "The split in which the spurious feature rarely agrees with y_s: leaning on it fails here.",
    "flipped": "The split in which the spurious feature predicts another label than y_s.",
    "natural": "The split in the data's own distribution, with no chosen rho.",
    "shifted": "A split whose spurious values training never showed.",
    "core": "The core feature: what the task is about and what ought to decide, such as a review's sentiment. Core "
    "types are the instructions whose right answer is y.",
    "spurious": "The spurious feature: something else in the text that tempts, such as a keyword that mostly stands in "
    "good reviews. Spurious types are the instructions whose right answer is y_s.",
    "y_s": "The label that the spurious feature's value is tied to.",
    "y": "The true label, which the core feature gives.",
    "rho": "P(y = y_s given s): how often the label tied to the spurious value s is the true one.",
    FEW_MARK: f"Of fewer than {FEW} examples: too few to mean something.",
}
# `shifted_low` is two words; `y_s` is one.
_WORD = re.compile(rf"(?<![^\W_])(?:{'|'.join(filter(str.isidentifier, WORDS))})(?![^\W_]|_s\b)|{FEW_MARK}")
# Words that are English, too, where they do not name a split.
_IN_PROSE = re.compile(rf"(?<!\w)(?:iid|flipped|core|spurious|y_s|rho)(?!\w)|{FEW_MARK}")
_LONGEST_TITLE = 200


def page(title: str, subtitle: str, body: str, examples: Sequence[Mapping[str, object]] = (), cap: str = "") -> str:
    """The page.

    Args:
        title: Its heading, plain text as all but `body`.
        subtitle: A line below it.
        body: Markup; what it says of the data was escaped by `as_html` or `fit_jax.tables`.
        examples: Records to look through: those in which `fit_jax/page.html` finds its fields.
        cap: Says how many of how many the examples are.
    """
    shell = files("fit_jax").joinpath("page.html").read_text(encoding="utf-8")
    (script,) = re.findall("<script>(.*?)</script>", shell, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    words = "".join(f'<dt>{word}</dt><dd id="{_identity(word)}">{as_html(text)}</dd>' for word, text in WORDS.items())
    return Template(shell).substitute(
        title=as_html(cut(title, _LONGEST_TITLE)),
        subtitle=as_html(subtitle),
        digest=digest,
        body=body,
        words=words,
        cap=as_html(cap),
        hidden="" if examples else " hidden",
        data=script_json(examples),
    )


def as_html(text: str) -> str:
    """Text as markup that shows it, within an element or a quoted attribute; control characters are written out."""
    return escape(printable(text))


def cut(text: str, longest: int) -> str:
    """Text of which the end is left out where it is long."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def script_json(value: object) -> str:
    """JSON that can stand in a <script> element: no text in it can end the element or open a comment."""
    text = json.dumps(_printable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


class Words:
    """Explains the words of the field in one piece of a page, each where it first stands: the keyboard stops there."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def explained(self, text: str, prose: bool = False) -> str:
        """Text as markup; in `prose`, high, low and natural are English and not the names of splits."""
        return (_IN_PROSE if prose else _WORD).sub(self._button, as_html(text))

    def _button(self, found: re.Match[str]) -> str:
        word = found[0]
        if word in self._seen:
            return word
        self._seen.add(word)
        return f'<button type="button" class="word" aria-describedby="{_identity(word)}">{word}</button>'


def _identity(word: str) -> str:
    return f"word-{'few' if word == FEW_MARK else word}"


def _printable(value: object) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {key: _printable(item) for key, item in value.items()}
    return list(map(_printable, value)) if isinstance(value, list | tuple) else value
