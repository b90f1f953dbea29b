"""Radar plots as in the paper's Figure 3: a spoke for each focus type, a line for each split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's colours, told apart by colour-blind eyes; line and marker tell them apart in grey.
STYLES = (
    ("#0072B2", "-", "o"),
    ("#E69F00", "--", "s"),
    ("#009E73", "-.", "^"),
    ("#CC79A7", ":", "D"),
    ("#000000", (0, (5, 1)), "v"),
)
SPOKES = {
    "none": "∅",
    "focus(core)": "focus(C)",
    "ignore(spurious)": "ignore(S)",
    "focus(core) & ignore(spurious)": "focus(C)\n∧ ignore(S)",
    "focus(spurious)": "focus(S)",
    "focus(spurious) & ignore(core)": "focus(S)\n∧ ignore(C)",
}


@dataclass(frozen=True)
class Panel:
    """One radar: its title and, per split, the focus accuracy by focus type, with its interval where known."""

    title: str
    lines: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None


def draw_radars(panels: Sequence[Panel | None], columns: int, path: Path) -> None:
    """Draws panels in a grid, row by row, into `path` (its suffix, .svg or .png, names the format); None is blank."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    width, height, legend = 4.1 * columns, 3.75 * rows, 0.4
    with matplotlib.rc_context({"svg.hashsalt": "fit_jax", "font.size": 9}):
        figure = Figure(figsize=(width, height + legend))
        handles: dict[str, Any] = {}
        for number, panel in enumerate(panels):
            if panel is None:
                continue
            # Fixed places: a radar fills the middle of its cell, names of spokes and title stand around it.
            left, top = (number % columns) * 4.1 + 0.75, height + legend - (number // columns) * 3.75 - 0.75
            box = (left / width, (top - 2.6) / (height + legend), 2.6 / width, 2.6 / (height + legend))
            handles = {**handles, **_draw(figure.add_axes(box, projection="polar"), panel)}
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=min(len(handles), 8), frameon=False)
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)


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
        axes.text(angle, 1.1 if side else 1.15, SPOKES[spoke], ha=align, va="center", fontsize=8.5)
    for radius in (0, 0.25, 0.5, 0.75, 1):
        axes.text(np.pi / 6, radius, f"{radius:g}", ha="center", va="center", fontsize=6.5, color="#555555", zorder=5)
    axes.text(0.5, 1.2, panel.title, transform=axes.transAxes, ha="center", va="center", fontsize=10)
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
