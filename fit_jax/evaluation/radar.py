"""Radar plots as in the paper's Figure 3: a spoke for each focus type, a line for each split."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fit_jax.evaluation.figures import STYLES, figure, inline_svg
from fit_jax.foreign import printable
from fit_jax.html import cut

# The focus types as tables name them, broken into lines.
SPOKES = {
    "none": "none",
    "focus(core)": "focus(core)",
    "ignore(spurious)": "ignore\n(spurious)",
    "focus(core) & ignore(spurious)": "focus(core)\n& ignore(spurious)",
    "focus(spurious)": "focus\n(spurious)",
    "focus(spurious) & ignore(core)": "focus\n(spurious) &\nignore(core)",
}
# Inches: a radar's cell, and the radar in it. Names stay readable where a page is as narrow as a phone.
_WIDTH, _HEIGHT, _RADAR = 3.95, 3.75, 2.3
_LONGEST_NAME = 36


@dataclass(frozen=True)
class Panel:
    """One radar: its title and, per split, the focus accuracy by focus type, with its interval where known."""

    title: str
    lines: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None


def draw_radars(panels: Sequence[Panel | None], columns: int, target: Path | BinaryIO, kind: str = "svg") -> None:
    """Draws panels in a grid, row by row; None is blank.

    Args:
        panels: The radars.
        columns: Of the grid.
        target: Where to, a path or an open file.
        kind: `svg` or `png`.
    """
    rows, per_line = -(-len(panels) // columns), 3 * columns
    splits = len({name for panel in panels if panel for name in panel.lines})
    width, height, legend = _WIDTH * columns, _HEIGHT * rows, 0.2 + 0.2 * -(-splits // per_line)
    with figure((width, height + legend), target, kind) as drawn:
        handles: dict[str, Any] = {}
        for number, panel in enumerate(panels):
            if panel is None:
                continue
            # Fixed places: a radar fills the middle of its cell, names of spokes and title stand around it.
            left = (number % columns) * _WIDTH + (_WIDTH - _RADAR) / 2
            bottom = height + legend - (number // columns) * _HEIGHT - 0.8 - _RADAR
            box = (left / width, bottom / (height + legend), _RADAR / width, _RADAR / (height + legend))
            handles = {**handles, **_draw(drawn.add_axes(box, projection="polar"), panel)}
        names = list(map(_name, handles))
        drawn.legend(handles.values(), names, loc="lower center", ncols=min(len(names), per_line), frameon=False)


def radar_figures(panels: Sequence[Panel | None]) -> str:
    """The panels for a page, each by itself so that a narrow page shows them below each other, and in words."""
    figures = []
    for number, panel in enumerate(filter(None, panels)):
        out = io.BytesIO()
        draw_radars([panel], 1, out)
        svg = inline_svg(out.getvalue().decode(), f"radar{number}-", in_words(panel))
        figures.append(f"<figure>{svg}</figure>")
    return (
        '<section class="card" aria-labelledby="radars"><h2 id="radars">Focus accuracy at a glance</h2>'
        '<p class="soft">A spoke for each focus instruction, a line for each split; the outer ring is 1. The tables '
        f'hold the numbers.</p><div class="radars">{"".join(figures)}</div></section>\n'
    )


def in_words(panel: Panel) -> str:
    """What a radar shows, for who does not see it: the lowest and the highest accuracy of each line, and where."""
    said = []
    for name, values in panel.lines.items():
        low, high = (pick(values, key=values.__getitem__) for pick in (min, max))
        said.append(f"{_name(name)} from {values[low]:.3f} ({low}) to {values[high]:.3f} ({high})")
    return f"Radar of focus accuracy, {' '.join(map(_name, panel.title.splitlines()))}: {'; '.join(said)}."


def _name(text: str) -> str:
    return cut(printable(text), _LONGEST_NAME)


def _draw(axes: Any, panel: Panel) -> dict[str, Any]:
    spokes = list(SPOKES)
    angles = np.arange(len(spokes)) * 2 * np.pi / len(spokes)
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1], [])
    axes.set_xticks(angles, [])
    axes.grid(color="#d0d0d0", linewidth=0.6)
    axes.spines["polar"].set_color("#b0b0b0")
    for angle, spoke in zip(angles, spokes):
        side = round(float(np.sin(angle)), 6)
        align = "center" if side == 0 else "left" if side > 0 else "right"
        axes.text(angle, 1.1 if side else 1.14 if angle == 0 else 1.2, SPOKES[spoke], ha=align, va="center")
    for radius in (0, 0.25, 0.5, 0.75, 1):
        axes.text(np.pi / 6, radius, f"{radius:g}", ha="center", va="center", fontsize=7.5, color="#555555", zorder=5)
    title = "\n".join(map(_name, panel.title.splitlines()))
    axes.text(0.5, 1.25, title, transform=axes.transAxes, ha="center", va="center", fontsize=11)
    closed = np.append(angles, angles[0])
    handles = {}
    for number, (name, values) in enumerate(panel.lines.items()):
        colour, line, marker = STYLES[number % len(STYLES)]
        radii = np.array([values.get(s, np.nan) for s in spokes])
        (handle,) = axes.plot(
            closed,
            np.append(radii, radii[0]),
            color=colour,
            linestyle=line,
            linewidth=1.6,
            marker=marker,
            markersize=4 + 1.5 * (len(panel.lines) - number),  # hollow and nested: lines that coincide stay visible
            markerfacecolor="none",
            clip_on=False,
            zorder=3,
            label=name,
        )
        if panel.intervals:
            low, high = (np.array([panel.intervals[name].get(s, (np.nan, np.nan))[e] for s in spokes]) for e in (0, 1))
            axes.fill_between(closed, np.append(low, low[0]), np.append(high, high[0]), color=colour, alpha=0.12, lw=0)
        handles[name] = handle
    return handles
