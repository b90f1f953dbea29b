"""Answers and attributions as HTML; every text of the data is escaped, whatever it holds."""

from collections.abc import Sequence

from fit_jax.api import Answer, Attribution
from fit_jax.html import as_html
from fit_jax.playground.question import ModelAnswers

# Candidates that are shown of an answer, the most probable ones.
_SHOWN = 6
# Pieces of a prompt that are named beside its heat map.
_NAMED = 4


def safe(text: str) -> str:
    """A text that stands in a page as it is: no markup, no template, no character that hides or turns others."""
    return as_html(text).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;").replace("`", "&#96;")


def notice(message: str) -> str:
    """A message in place of answers."""
    return f'<p class="fx-notice" role="alert">{safe(message)}</p>'


def answers(columns: Sequence[ModelAnswers]) -> str:
    """The answers under the question's own instruction and under every focus type, models side by side."""
    asked, every = [c.asked for c in columns], list(zip(*(c.all for c in columns)))
    named = [same[0].focus for same in every]
    rows = [] if asked[0].focus in named else [_row(asked, columns, asked[0].focus or "own words", True)]
    rows += [_row(same, columns, name, name == asked[0].focus) for same, name in zip(every, named)]
    titles = "".join(f'<th scope="col">{safe(_title(c))}</th>' for c in columns)
    many = " fx-many" if len(columns) > 2 else ""
    return (
        f'<p class="fx-summary" aria-live="polite">{" ".join(map(safe, summary(columns)))}</p>'
        f'<table class="fx-answers{many}"><caption class="fx-hidden">Answers under each focus instruction</caption>'
        f'<thead><tr><th scope="col">Instruction</th>{titles}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def summary(columns: Sequence[ModelAnswers]) -> list[str]:
    """What the decoy turned and where two models part, in a sentence each."""
    sentences = []
    for with_decoy in (c for c in columns if c.decoy):
        (plain,) = (c for c in columns if c.model == with_decoy.model and not c.decoy)
        turned = _differing(plain.all, with_decoy.all)
        sentences.append(f"{plain.model}: the decoy turns {turned} of {len(plain.all)} answers.")
    first, *others = [c for c in columns if not c.decoy]
    for other in others:
        parts = _differing(first.all, other.all)
        sentences.append(f"{first.model} and {other.model} part in {parts} of {len(first.all)} answers.")
    return sentences


def heat_map(name: str, found: Attribution) -> str:
    """A prompt whose pieces are the darker the more the answer depends on them."""
    most = max(found.weights) or 1.0
    spans = "".join(
        f'<span style="--w:{weight / most:.3f}" title="{weight:.2f}">{safe(piece)}</span>'
        for piece, weight in zip(found.pieces, found.weights)
    )
    ranked = sorted(zip(found.weights, found.pieces), key=lambda pair: -pair[0])
    named = ", ".join(f"“{piece.strip()}” {weight:.2f}" for weight, piece in ranked[:_NAMED])
    return (
        f'<figure class="fx-heat"><figcaption>{safe(name)}: what “{safe(found.answer)}” rests on</figcaption>'
        f'<p class="fx-prompt">{spans}</p><p class="fx-named">Most: {safe(named)}</p></figure>'
    )


def _row(same: Sequence[Answer], columns: Sequence[ModelAnswers], title: str, asked: bool) -> str:
    """One instruction and what is answered under it, column by column."""
    marks = (_mark(number, same, columns) for number in range(len(columns)))
    cells = "".join(map(_cell, same, columns, marks))
    words = f"<q>{safe(same[0].instruction)}</q>" if same[0].instruction else "<i>no instruction</i>"
    kind, mine = (' class="fx-asked"', "your question: ") if asked else ("", "")
    return f'<tr{kind}><th scope="row"><code>{mine}{safe(title)}</code>{words}</th>{cells}</tr>'


def _cell(answer: Answer, column: ModelAnswers, mark: str) -> str:
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
    shown = [pair for pair in answer.probabilities.items() if pair in ranked[:_SHOWN]]
    bars = "".join(
        f'<li><span>{safe(name)}</span><i><b style="width:{100 * p:.1f}%"></b></i><span>{p:.3f}</span></li>'
        for name, p in shown
    )
    rest = f"<li>and {len(ranked) - len(shown)} others</li>" if len(ranked) > len(shown) else ""
    marked = f'<span class="fx-mark">{mark}</span>' if mark else ""
    return (
        f'<td data-column="{safe(_title(column))}"><strong class="fx-answer">{safe(answer.answer)}</strong>{marked}'
        f"<ul>{bars}{rest}</ul></td>"
    )


def _mark(number: int, same: Sequence[Answer], columns: Sequence[ModelAnswers]) -> str:
    """What is to be noticed of an answer: that the decoy turned it, or that it is not the first model's."""
    column = columns[number]
    if column.decoy:
        return "turned" if same[number].answer != same[number - 1].answer else ""
    return "differs" if same[number].answer != same[0].answer else ""


def _title(column: ModelAnswers) -> str:
    return f"{column.model} + decoy" if column.decoy else column.model


def _differing(first: Sequence[Answer], second: Sequence[Answer]) -> int:
    return sum(a.answer != b.answer for a, b in zip(first, second))
