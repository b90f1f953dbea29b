"""Text of the data in Markdown: shown as it is, whatever it holds, and never read as Markdown or HTML."""

import re

from fit_jax.foreign import printable

# An interval, which no renderer takes for a link, stands as it is.
_SPECIAL = re.compile(r"(?P<interval>\[[-+.\d]+, [-+.\d]+\](?![(\[:]))|[\\`*\[\]|~#$]|(?<!\w)_|_(?!\w)")
# Where a character would be read by its name or number.
_NAMED = re.compile(r"&(?=#?\w+;)")
# What begins an item of a list or is a rule across the page.
_OPENING = re.compile(r"^(\d+(?=[.)])|(?=[-+]))([-+.)])(?=\s|[- ]*$)")


def as_text(text: str) -> str:
    """Text within a paragraph, a heading or a table's cell."""
    plain = _NAMED.sub("&amp;", " ".join(printable(text).split())).replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(lambda found: found[0] if found["interval"] else f"\\{found[0]}", plain)
    return _OPENING.sub(r"\1\\\2", line)


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
