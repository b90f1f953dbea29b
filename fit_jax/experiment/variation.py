"""What becomes of focus accuracy where an experiment varies something: a line a split, a point a variant."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fit_jax.evaluation.figures import STYLES, figure, inline_svg
from fit_jax.evaluation.metrics import group_by, is_shifted, kind_of
from fit_jax.experiment.analysis import KINDS
from fit_jax.experiment.method_tables import METHOD_NAMES
from fit_jax.experiment.other_models import ByModel
from fit_jax.foreign import printable
from fit_jax.html import as_html, cut

_LONGEST_NAME = 36
_WIDTH, _HEIGHT = 3.6, 2.8  # inches of a panel


class Point(NamedTuple):
    """A focus accuracy over seeds: its mean and standard deviation, NaN with one seed."""

    mean: float
    deviation: float


# Points by variant, NaN where one lacks the method or the split.
Lines = Mapping[str, Sequence[Point]]


def variation(variants: ByModel, method: str, paraphrases: str, kind: str) -> Lines:
    """A method's focus accuracy on the types of a kind, by split.

    Args:
        variants: The rows of each variant's `focus_accuracy.jsonl`.
        method: The method.
        paraphrases: The set of paraphrases.
        kind: Of focus types, `core` or `spurious`.
    """
    asked = {
        name: [r for r in rows if (r["method"], r["paraphrases"], kind_of(r["focus"])) == (method, paraphrases, kind)]
        for name, rows in variants.items()
    }
    splits = dict.fromkeys(r["split"] for rows in asked.values() for r in rows if not is_shifted(r["split"]))
    return {split: [_point([r for r in rows if r["split"] == split]) for rows in asked.values()] for split in splits}


def draw_variation(
    variants: ByModel, varied: str, paraphrases: str, target: Path | BinaryIO, kind: str = "svg"
) -> None:
    """Draws a panel for each method and kind of focus type.

    Args:
        variants: The rows of each variant's `focus_accuracy.jsonl`, in the order in which they stand.
        varied: What they differ in.
        paraphrases: The set of paraphrases.
        target: Where to, a path or an open file.
        kind: `svg` or `png`.
    """
    methods = _methods(variants)
    with figure((2 * _WIDTH, _HEIGHT * len(methods) + 0.4), target, kind) as drawn:
        panels = drawn.subplots(len(methods), len(KINDS), squeeze=False, sharey=True)
        handles: dict[str, Any] = {}
        for row, method in zip(panels, methods):
            for axes, of in zip(row, KINDS):
                handles |= _draw(axes, variation(variants, method, paraphrases, of), list(variants))
                axes.set_title(f"{_name(METHOD_NAMES.get(method, method))}, {of} types", fontsize=10)
                axes.set_xlabel(_name(varied))
            row[0].set_ylabel("focus accuracy")
        drawn.legend(handles.values(), map(_name, handles), loc="lower center", ncols=4, frameon=False)
        drawn.tight_layout(rect=(0, 0.4 / (_HEIGHT * len(methods) + 0.4), 1, 1))


def variation_html(variants: ByModel, varied: str, paraphrases: str) -> str:
    """The figure as a section of a page, described in words as well."""
    out = io.BytesIO()
    draw_variation(variants, varied, paraphrases, out)
    svg = inline_svg(out.getvalue().decode(), "variation-", in_words(variants, varied, paraphrases))
    return (
        f'<section class="card" aria-labelledby="variation"><h2 id="variation">By {as_html(varied)}</h2>'
        '<p class="soft">Mean focus accuracy over seeds, and its standard deviation where there are several. The table '
        f"of variants holds the numbers.</p><figure>{svg}</figure></section>\n"
    )


def in_words(variants: ByModel, varied: str, paraphrases: str) -> str:
    """What the figure shows, for who does not see it."""
    said = []
    for method in _methods(variants):
        for kind in KINDS:
            for split, points in variation(variants, method, paraphrases, kind).items():
                values = ", ".join(f"{_name(name)} {p.mean:.3f}" for name, p in zip(variants, points))
                said.append(f"{_name(METHOD_NAMES.get(method, method))}, {kind} types, {_name(split)}: {values}")
    return f"Focus accuracy by {_name(varied)}. {'; '.join(said)}."


def _point(rows: Sequence[Mapping[str, Any]]) -> Point:
    seeds = group_by(rows, lambda row: row["seed"]).values()
    shares = [sum(r["correct"] for r in cell) / sum(r["count"] for r in cell) for cell in seeds]
    return Point(
        float(np.mean(shares)) if shares else np.nan, float(np.std(shares, ddof=1)) if len(shares) > 1 else np.nan
    )


def _draw(axes: Any, lines: Lines, names: Sequence[str]) -> dict[str, Any]:
    places, handles = np.arange(len(names)), {}
    for number, (split, points) in enumerate(lines.items()):
        colour, line, marker = STYLES[number % len(STYLES)]
        handles[split] = axes.errorbar(
            places + 0.04 * (number - (len(lines) - 1) / 2),  # beside each other, so that all are seen
            [p.mean for p in points],
            [0 if np.isnan(p.deviation) else p.deviation for p in points],
            color=colour,
            linestyle=line,
            marker=marker,
            markerfacecolor="none",
            capsize=2,
        )
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks(places, [_name(name) for name in names])
    axes.grid(axis="y", color="#d0d0d0", linewidth=0.6)
    return handles


def _methods(variants: ByModel) -> list[str]:
    return list(dict.fromkeys(row["method"] for rows in variants.values() for row in rows))


def _name(text: str) -> str:
    return cut(printable(text), _LONGEST_NAME)
