"""One table, as Markdown, HTML, CSV, LaTeX or on a terminal; text of the data is shown as it is in all of them."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from fit_jax.foreign import printable
from fit_jax.html import FEW, FEW_MARK, FEW_NOTE, Words, as_html, cut
from fit_jax.markdown import as_code, as_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable

# Longer texts are cut in a cell: a table is to be looked over.
_LONGEST = 300
_LONGEST_WORD = 24
# A cell of numbers alone, which no document reads as anything else.
_NUMBERS = re.compile(rf"[-+.,/%±\d\[\] {FEW_MARK}]*")
_INTERVAL = re.compile(r"\[[-+.\d]+, [-+.\d]+\]")


class Code(str):
    """A cell's text that is a name to be written as it stands, such as a focus type."""


@dataclass(frozen=True)
class Table:
    """A table with its heading and what a reader must know of it.

    Attributes:
        title: The heading.
        caption: How to read it.
        header: A column's name each; plain text as all cells, whose text may be anything.
        rows: As many cells each as the header.
        name: Of its files.
        texts: Columns from the left that hold text; the others hold numbers.
        aside: Rows at the end that are there to compare with.
    """

    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    name: str = ""
    texts: int = 1
    aside: int = 0

    @property
    def note(self) -> str:
        """Explains the mark of few examples where a cell has it, else ""."""
        marked = any(cell.endswith(FEW_MARK) for row in self.rows for cell in row)
        return FEW_NOTE if marked else ""

    def markdown(self) -> str:
        """Heading, caption and a Markdown table."""
        lines = [list(map(_markdown_cell, row)) for row in (self.header, *self.rows)]
        lines.insert(1, ["---"] * self.texts + ["---:"] * (len(self.header) - self.texts))
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(filter(None, (f"## {as_text(self.title)}", as_text(self.caption), table, self.note)))

    def html(self) -> str:
        """Heading and table for a page (`fit_jax.html.page`); words of the field are explained."""
        words = Words()
        caption = words.explained(" ".join(filter(None, (self.caption, self.note))), prose=True)
        names = list(map(_short, self.header))
        kinds = [' class="text"' if number < self.texts else "" for number in range(len(names))]
        head = [
            f'<th scope="col" role="columnheader"{k}>{_breakable(n, words.explained(n))}</th>'
            for k, n in zip(kinds, names)
        ]
        last = len(self.rows) - self.aside
        body = "".join(self._html_row(row, names, words, number >= last) for number, row in enumerate(self.rows))
        title = as_html(_short(self.title))
        identity = f"table-{re.sub('[^a-z0-9]+', '-', (self.name or self.title)[:60].lower())}"
        return (
            f'<section class="card" aria-labelledby="{identity}"><h2 id="{identity}">{title}</h2>'
            f'<p class="soft">{caption}</p><div class="wide"><table role="table"><caption>{title}</caption>'
            f'<thead role="rowgroup"><tr role="row">{"".join(head)}</tr></thead>'
            f'<tbody role="rowgroup">{body}</tbody></table></div></section>\n'
        )

    def _html_row(self, row: Sequence[str], names: list[str], words: Words, aside: bool) -> str:
        first, *others = row
        cells = [f'<th scope="row" role="rowheader">{_html_cell(first, words)}</th>']
        for number, (name, cell) in enumerate(zip(names[1:], others), 1):
            kind = ' class="text"' if number < self.texts else ""
            label = escape(printable(name), quote=True)
            cells.append(f'<td role="cell"{kind} data-label="{label}">{_html_cell(cell, words)}</td>')
        opening = '<tr role="row" class="aside">' if aside else '<tr role="row">'
        return f"{opening}{''.join(cells)}</tr>"

    def csv(self) -> str:
        """Comma-separated values with a header."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.header, *self.rows])
        return out.getvalue()

    def terminal(self) -> "RichTable":
        """For `rich` to print (`fit_jax.terminal`)."""
        from rich.table import Table as RichTable

        about = " ".join(filter(None, (self.caption, self.note))) or None
        table = RichTable(title=self.title, caption=about, title_justify="left", caption_justify="left")
        for number, name in enumerate(self.header):
            table.add_column(_short(name), justify="left" if number < self.texts else "right", no_wrap=not number)
        last = len(self.rows) - self.aside
        for number, row in enumerate(self.rows):
            table.add_row(*map(_short, row), style="dim" if number >= last else None)
        return table

    def latex(self) -> str:
        """A `booktabs` table that compiles by itself within a document."""
        body = [" & ".join(map(_tex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                r"\begin{table}",
                r"  \centering",
                rf"  \caption{{{_tex(' '.join(filter(None, (self.caption, self.note))))}}}",
                rf"  \label{{tab:{self.name.replace('_', '-')}}}",
                rf"  \begin{{tabular}}{{{'l' * self.texts}{'r' * (len(self.header) - self.texts)}}}",
                r"    \toprule",
                "    " + " & ".join(map(_tex, self.header)) + r" \\",
                r"    \midrule",
                *(f"    {line}" for line in body),
                r"    \bottomrule",
                r"  \end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def share(value: float | None, count: int | None = None) -> str:
    """A share for a cell, marked where it is of few examples; nothing where there is none."""
    return "" if value is None else marked(f"{value:.3f}", count)


def share_in(value: float, low: float, high: float, count: int | None = None) -> str:
    """A share for a cell with its interval, marked where it is of few examples."""
    return marked(f"{value:.3f} [{low:.3f}, {high:.3f}]", count)


def marked(text: str, count: int | None) -> str:
    """Text about `count` examples, marked where these are too few; None where they are not counted."""
    return text if count is None or count >= FEW else f"{text} {FEW_MARK}"


def _short(cell: str) -> str:
    return cut(cell, _LONGEST)


def _markdown_cell(cell: str) -> str:
    if _NUMBERS.fullmatch(cell):
        return cell
    return as_code(_short(cell)) if isinstance(cell, Code) else as_text(_short(cell))


def _html_cell(cell: str, words: Words) -> str:
    if isinstance(cell, Code):
        return f"<code>{_breakable(cell, words.explained(_short(cell)))}</code>"
    plain = as_html(_short(cell))
    if plain.endswith(f" {FEW_MARK}"):
        plain = plain.removesuffix(FEW_MARK) + words.explained(FEW_MARK)
    return _breakable(cell, _INTERVAL.sub(r"<small>\g<0></small>", plain))


def _breakable(text: str, markup: str) -> str:
    """Markup that breaks within a word where the text has one that no column is wide enough for."""
    longest = max(map(len, text.split()), default=0)
    return f'<span class="long">{markup}</span>' if longest > _LONGEST_WORD else markup


_TEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {FEW_MARK: r"$\dagger$"} | {character: f"\\{character}" for character in "&%$#_{}"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in printable(" ".join(text.split())))
