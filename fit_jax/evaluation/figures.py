"""The frame of every figure: drawn without a screen, the same bytes each time, and put into a page in its colours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fit_jax.html import as_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind eyes can distinguish; line and marker tell them apart in grey.
STYLES = (
    ("#0072B2", "-", "o"),
    ("#E69F00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#000000", (0, (5, 1)), "v"),
)
# A page has colours of its own, light and dark, for those that are drawn.
_PAGE_COLOURS = {
    "#ffffff": "var(--card)",
    "#d0d0d0": "var(--line)",
    "#b0b0b0": "var(--line)",
    "#555555": "var(--soft)",
    **{colour.lower(): f"var(--series-{number})" for number, (colour, _, _) in enumerate(STYLES, 1)},
}
# What matplotlib would write of itself and of the day.
_UNSAID = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def figure(size: tuple[float, float], target: Path | BinaryIO, kind: str) -> Iterator["Figure"]:
    """A figure to draw into, which is saved at the end.

    Args:
        size: Width and height in inches.
        target: Where to, a path or an open file.
        kind: `svg` or `png`.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    # Names are text, whatever they hold: no dollar sign begins a formula.
    with matplotlib.rc_context({"svg.hashsalt": "fit_jax", "font.size": 10, "text.parse_math": False}):
        drawn = Figure(figsize=size)
        yield drawn
        drawn.savefig(target, format=kind, dpi=150, metadata=_UNSAID if kind == "svg" else None)


def inline_svg(document: str, prefix: str, label: str) -> str:
    """An SVG document to stand within a page: without prolog, metadata and comments, in the page's colours.

    Args:
        document: The SVG.
        prefix: Of its ids: what several drawings name alike must be unlike in one page.
        label: What it shows, for who does not see it.
    """
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", document[document.index("<svg") :], flags=re.DOTALL)
    svg = re.sub("#[0-9a-fA-F]{6}(?![\\w-])", lambda c: _PAGE_COLOURS.get(c[0].lower(), c[0]), svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<0>{prefix}", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{as_html(label)}" ', 1)
