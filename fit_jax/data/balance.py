"""What setting rho costs: the rows that a split could have had, and those that were left out to balance it."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from fit_jax.data.splits import GroupCount
from fit_jax.data.task import Task
from fit_jax.foreign import shown

# Cells of the picture and of the table; the largest are shown.
_MOST = 24
_WIDTH, _LABEL, _BAR, _ROW = 760, 260, 330, 22
_KEPT, _LEFT_OUT = "#0072B2", "#d0d5dc"


class Balance(NamedTuple):
    """A split against the rows that it was drawn from.

    Attributes:
        split: Its name.
        available: Rows there were.
        kept: Rows drawn.
        cells: Both by feature value and outcome.
    """

    split: str
    available: int
    kept: int
    cells: tuple[GroupCount, ...]

    @property
    def words(self) -> str:
        """The account in one sentence."""
        left = self.available - self.kept
        share = left / max(self.available, 1)
        return f"{self.split}: {left:,} of {self.available:,} rows ({share:.0%}) are left out, {self.kept:,} stay"

    @property
    def largest(self) -> list[GroupCount]:
        """The cells with most rows, in their order."""
        most = sorted(self.cells, key=lambda cell: -cell.available)[:_MOST]
        return [cell for cell in self.cells if cell in most and cell.available]


def balances_of(task: Task) -> list[Balance]:
    """What each split of a task was drawn from, except for splits that are as they came or were kept elsewhere."""
    found = []
    for split in task.splits.values():
        if split.cells:
            available, kept = (sum(counts) for counts in zip(*((c.available, c.drawn) for c in split.cells)))
            found.append(Balance(split.name, available, kept, split.cells))
    return found


def bar(cell: GroupCount, most: int, width: int = 20) -> str:
    """A cell as a bar of text, as long as its share of `most` rows: dark what was kept, light what was left out."""
    whole, kept = (round(width * rows / max(most, 1)) for rows in (cell.available, cell.drawn))
    return "█" * kept + "░" * (whole - kept)


def balance_picture(balance: Balance) -> str:
    """The cells of a split as an SVG that can stand in a page or a file of its own."""
    cells = balance.largest
    most = max((cell.available for cell in cells), default=1)
    height = 66 + _ROW * len(cells)
    parts = [_text(12, 22, balance.words, weight="bold"), *_legend()]
    for number, cell in enumerate(cells):
        y = 54 + _ROW * number
        whole, kept = (_BAR * rows / most for rows in (cell.available, cell.drawn))
        parts += [
            _text(_LABEL - 8, y + 13, shown(_name(cell))[:40], anchor="end"),
            _rect(_LABEL, y, whole, _LEFT_OUT),
            _rect(_LABEL, y, kept, _KEPT),
            _text(_LABEL + whole + 6, y + 13, f"{cell.drawn:,} of {cell.available:,}"),
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" '
    head += f'font-family="sans-serif" font-size="12"><title>{escape(balance.words)}</title>'
    return f'{head}<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def of_training(balances: Sequence[Balance]) -> list[Balance]:
    """That of the training split, where balancing left out anything there: what is worth a picture."""
    return [balance for balance in balances if balance.split == "train" and balance.kept < balance.available]


def balance_rows(balance: Balance) -> list[tuple[str, ...]]:
    """The cells of a split as rows of a table: value, label, rows, kept, left out, bar."""
    most = max(cell.available for cell in balance.cells)
    return [
        (
            *(cell.value or "(any)", cell.outcome, f"{cell.available:,}", f"{cell.drawn:,}"),
            *(f"{cell.available - cell.drawn:,}", bar(cell, most)),
        )
        for cell in balance.largest
    ]


def _name(cell: GroupCount) -> str:
    return f"{cell.value}, {cell.outcome}" if cell.value else cell.outcome


def _legend() -> list[str]:
    return [
        *(_rect(_LABEL, 32, 12, _KEPT, 12), _text(_LABEL + 18, 42, "kept")),
        *(_rect(_LABEL + 70, 32, 12, _LEFT_OUT, 12), _text(_LABEL + 88, 42, "left out")),
    ]


def _rect(x: float, y: float, width: float, colour: str, height: int = _ROW - 6) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="#1d2430"'
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(words)}</text>'
