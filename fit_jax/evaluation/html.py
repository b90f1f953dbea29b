"""The report as one HTML file that needs no other: radar, tables and a browser of examples."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from fit_jax.evaluation.metrics import (
    Accuracy,
    ordered,
    pooled,
    probabilities,
    three_digits,
)
from fit_jax.evaluation.queries import Prediction, Query
from fit_jax.evaluation.reference_lines import reference_lines, split_titles

EXAMPLES_PER_CELL = 12
EXAMPLES_IN_ALL = 4000


def page(title: str, subtitle: str, figures: str, tables: str, cap: str, examples: Sequence[Mapping[str, Any]]) -> str:
    """The page; `figures` and `tables` are markup, everything else is text and is escaped."""
    template = Template(files("fit_jax.evaluation").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        figures=figures,
        tables=tables,
        cap=escape(cap),
        data=script_json(examples),
    )


def script_json(value: Any) -> str:
    """JSON that can stand in a <script> element: no text in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def inline_svg(document: str) -> str:
    """An SVG document without its XML prolog and metadata, to stand within HTML."""
    return re.sub(r"<metadata>.*?</metadata>", "", document[document.index("<svg") :], flags=re.DOTALL)


def accuracy_tables(predictions: Sequence[Prediction], paraphrase_names: Mapping[str, str]) -> str:
    """Focus types x splits, one table a paraphrase set, with intervals and the rates of not reading."""
    cells, references = pooled(predictions), reference_lines(predictions)
    names = split_titles(dict.fromkeys(key[1] for key in cells), predictions)
    parts = []
    for paraphrases in dict.fromkeys(key[0] for key in cells):
        parts.append(f'<h2>Focus accuracy, {escape(paraphrase_names[paraphrases])}</h2><section class="card"><table>')
        parts.append(_row("th", ["focus instruction", *map(escape, names.values())]))
        for focus in ordered(key[2] for key in cells):
            parts.append(_row("td", [escape(focus), *(_cell(cells.get((paraphrases, name, focus))) for name in names)]))
        for line, rates in references.items():
            parts.append(_row("td", [line, *(three_digits(rates.get(name)) for name in names)], "reference"))
        parts.append("</table></section>")
    return "\n".join(parts)


def choose_examples(
    queries: Sequence[Query],
    predictions: Sequence[Prediction],
    render: Callable[[Query], str],
    in_all: int = EXAMPLES_IN_ALL,
) -> tuple[list[dict[str, Any]], str]:
    """The examples to embed, and the sentence that says how many of how many they are.

    Of each cell (split, focus type, feature, paraphrases) the first few, half of them wrong where there are as many;
    about `in_all` altogether.
    """
    cells = defaultdict(list)
    for number, p in enumerate(predictions):
        cells[p.split, p.focus, p.feature, p.paraphrases].append(number)
    limit = max(2, min(EXAMPLES_PER_CELL, in_all // max(len(cells), 1)))
    records = []
    for numbers in cells.values():
        wrong = [n for n in numbers if not predictions[n].correct][: limit // 2]
        right = [n for n in numbers if predictions[n].correct][: limit - len(wrong)]
        records += [_record(queries[n], predictions[n], render) for n in sorted(wrong + right)]
    cap = (
        f"{len(records)} of {len(predictions)} examples: up to {limit} of each cell (split, focus instruction, feature "
        f"and paraphrases), up to {limit // 2} of them wrong, so mistakes are commoner here than in the tables. All "
        "answers are in predictions.jsonl."
    )
    return records, cap


def _record(query: Query, prediction: Prediction, render: Callable[[Query], str]) -> dict[str, Any]:
    return {
        "split": prediction.split,
        "focus": prediction.focus,
        "feature": prediction.feature,
        "value": prediction.value,
        "paraphrases": prediction.paraphrases,
        "uid": prediction.uid,
        "prompt": render(query),
        "candidates": list(query.example.candidates),
        "probabilities": [round(float(p), 4) for p in probabilities(prediction.log_probs)],
        "label": prediction.label,
        "core_label": prediction.core_label,
        "prediction": prediction.prediction,
        **({} if prediction.text is None else {"text": prediction.text}),
    }


def _cell(cell: Accuracy | None) -> str:
    return "" if cell is None else f"{cell.accuracy:.3f} <small>[{cell.ci_low:.3f}, {cell.ci_high:.3f}]</small>"


def _row(tag: str, values: Sequence[str], name: str = "") -> str:
    opening = f'<tr class="{name}">' if name else "<tr>"
    return opening + "".join(f"<{tag}>{v}</{tag}>" for v in values) + "</tr>"
