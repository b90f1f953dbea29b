"""Text of the data in Markdown: shown as it is, whatever it holds, and never read as Markdown or HTML."""

import re
from html import escape

from fit_jax.foreign import printable

_SPECIAL = re.compile(r"[\\`*\[\]|~#$]|(?<!\w)_|_(?!\w)")
_LIST = re.compile(r"^(\s*)([-+]|\d+[.)])(?=\s)")


def as_text(text: str) -> str:
    """Text within a paragraph, a heading or a table's cell."""
    line = _LIST.sub(r"\1\\\2", escape(" ".join(printable(text).split()), quote=False))
    return _SPECIAL.sub(r"\\\g<0>", line)


def as_code(text: str) -> str:
    """Text as code within a line, in a table's cell too."""
    line = " ".join(printable(text).split()).replace("|", "\\|")
    ticks = _longer_than_any("`", line, 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def as_block(text: str, language: str) -> str:
    """Lines of code; `text` ends in a line feed."""
    fence = _longer_than_any("`", text, 3)
    return f"{fence}{language}\n{printable(text)}{fence}"


def _longer_than_any(mark: str, text: str, least: int) -> str:
    runs = re.findall(f"{re.escape(mark)}+", text)
    return mark * max([least, *(len(run) + 1 for run in runs)])
