"""Names of columns in a description: where they can stand, and how they read in a sentence."""

import re
from collections.abc import Iterable
from string import Formatter

from fit_jax.foreign import is_text, shown


def can_be_slot(name: str) -> bool:
    """Whether a column's name can stand in braces in an `input`."""
    if not re.fullmatch(r"[^.\[\]{}:!\n\r]+", name) or name.strip().isdigit() or not is_text(name):
        return False
    return list(Formatter().parse(f"{{{name}}}")) == [("", name, "", None)]


def plain_words(name: str) -> str:
    """A name as words: `sent_by` is "sent by"."""
    return " ".join(re.sub(r"[_\W]+", " ", name).split()).lower() or "column"


def slot(column: str) -> str:
    """A line of an `input` that shows a column."""
    return f"{plain_words(column).capitalize()}: {{{column}}}"


def either(names: Iterable[object]) -> str:
    """All names in a sentence, as a choice."""
    *earlier, last = [shown(str(name)) for name in names]
    return f"{', '.join(earlier)} or {last}" if earlier else last


def listed(names: Iterable[object], most: int = 12) -> str:
    """Names in a sentence, at most so many of them."""
    texts = [shown(str(name)) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
