"""The frame of figures: the same bytes each time, text as it is, and an SVG that may stand in a page with others."""

import io
import re

import pytest

from fit_jax.evaluation.figures import STYLES, figure, inline_svg


def drawn(kind="svg", title="a $\\frac{ of <b>"):
    out = io.BytesIO()
    with figure((2, 1), out, kind) as made:
        axes = made.add_subplot()
        axes.plot([0, 1], color=STYLES[0][0])
        axes.set_title(title)  # as a formula it would not be drawn
    return out.getvalue()


@pytest.mark.parametrize(("kind", "begins"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_figure_is_the_same_each_time(kind, begins):
    assert drawn(kind) == drawn(kind)
    assert drawn(kind).startswith(begins)


def test_nothing_is_said_of_the_day_and_the_program():
    assert not re.search(rb"<dc:(date|creator|format)", drawn())


def test_what_fails_while_it_is_drawn_saves_nothing():
    out = io.BytesIO()
    with pytest.raises(ZeroDivisionError), figure((2, 1), out, "svg"):
        _ = 1 / 0
    assert out.getvalue() == b""


def test_an_svg_in_a_page_is_labelled_and_has_names_and_colours_of_its_own():
    svg = inline_svg(drawn().decode(), "one-", 'says "<b>"')
    assert svg.startswith('<svg role="img" aria-label="says &quot;&lt;b&gt;&quot;" ')
    assert not re.search("<metadata|<!--|<[?]xml|#0072b2", svg)
    assert "var(--series-1)" in svg
    assert all(name.startswith("one-") for name in re.findall(r'(?: id="|href="#|url\(#)([^")]*)', svg))
    assert not re.search(r'<svg[^>]* (width|height)="', svg)
