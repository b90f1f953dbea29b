"""What inspect and audit found, as tables in the terminal and as one HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from fit_jax.data.association import Evidence
from fit_jax.data.audit import Audit
from fit_jax.data.balance import Balance, balance_picture, balance_rows, of_training
from fit_jax.data.columns import MOST_COUNTED, Column
from fit_jax.data.describing import Described
from fit_jax.data.label_words import LEVEL, Kind, TokenRow
from fit_jax.data.task import Task
from fit_jax.focus.example import Example
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, focus_label, spec_for
from fit_jax.foreign import shown
from fit_jax.terminal import Terminal

_MOST_TOKENS = 30
# By kind of word, a title and how to read it.
_TOKENS: Mapping[Kind, tuple[str, str]] = {
    "shortcut": ("likely shortcuts", "Values of the features, names, numbers and codes."),
    "function word": (
        "function words",
        "How a text is put, with its negation: shortcuts, unless the task is about them.",
    ),
    "content": ("content", "Signal, as a rule: what the label is about. A word that should not decide is a shortcut."),
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; background: #f6f7f9; margin: 0 }
main { max-width: 1100px; margin: 0 auto; padding: 24px }
table { border-collapse: collapse; background: #fff; margin-bottom: 8px; font-variant-numeric: tabular-nums }
th, td { border: 1px solid #d9dee5; padding: 4px 10px; text-align: left; vertical-align: top }
pre { background: #fff; border: 1px solid #d9dee5; padding: 12px; white-space: pre-wrap }
mark { background: #ffe08a } p { color: #5b6675 }
"""


class Section(NamedTuple):
    """A table with its title and one sentence on how to read it."""

    title: str
    reading: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def shown_prompts(task: Task, encoder: PromptEncoder) -> list[dict[str, str]]:
    """One training example under each focus instruction: prompt, target (what carries loss) and the focus label."""
    example: Example = task.splits["train"].examples[0]
    feature = next(iter(example.spurious), "")
    prompts = []
    for focus_type in FOCUS_TYPES if feature else FOCUS_TYPES[:2]:  # without a feature: none, and focus on the core
        spec = spec_for(focus_type, feature)
        told = paraphrases_of(task.text.name, focus_type, "train")[0]
        text = told and instruction(task.text, spec, told)
        label = focus_label(example, spec)
        (encoded,) = encoder.encode([example], [text])
        tokens = encoder.tokenizer.convert_ids_to_tokens(encoded.answers[label].tolist())
        prompt = encoder.tokenizer.decode(encoded.prompt.tolist())
        prompts.append({"focus": str(spec), "prompt": prompt, "target": " ".join(tokens)})
    return prompts


def print_summary(summary: Mapping[str, Any]) -> None:
    """Prints what `fit_jax.data.summary.summarise` counted."""
    _print(summary["task"], _summary_sections(summary), summary["notes"])
    for prompt in summary["prompts"]:
        Terminal().print(f"\n{prompt}")


def print_described(found: Described) -> None:
    """Prints what a table's columns hold, and what each tells about the label."""
    columns = [
        (c.name, c.kind, f"{c.filled / found.table.rows:.0%}", _different(c), _such_as(c), found.draft.roles[c.name])
        for c in found.table.columns.values()
    ]
    sections = [
        Section(
            "Columns",
            f"{found.table.rows:,} rows.",
            ("column", "holds", "filled", "different values", "such as", "taken as"),
            columns,
        ),
        _evidence_section(found.draft.evidence),
    ]
    _print(found.draft.own.name, sections, found.notes)


def print_audit(audit: Audit, prompts: Sequence[Mapping[str, str]]) -> None:
    """Prints an audit."""
    _print(audit.task, _audit_sections(audit), audit.notes)
    console = Terminal()
    for prompt in prompts:
        console.rule(Text(prompt["focus"]))
        console.print(prompt["prompt"], end="")
        console.print(f" [{prompt['target']}] <- target")


def audit_page(audit: Audit, prompts: Sequence[Mapping[str, str]]) -> str:
    """The audit as an HTML page that needs no other file."""
    parts = [f"<h1>Audit of {escape(audit.task)}</h1>", *(f"<p>{escape(note)}</p>" for note in audit.notes)]
    for title, reading, header, rows in _audit_sections(audit):
        parts += [f"<h2>{escape(title)}</h2><p>{escape(reading)}</p><table>", _row("th", header)]
        parts += [*(_row("td", row) for row in rows), "</table>"]
    parts += [f"<h2>Picture of what balancing leaves out</h2>{balance_picture(b)}" for b in of_training(audit.balance)]
    parts.append("<h2>Prompts and targets</h2><p>The marked tokens carry the loss.</p>")
    for prompt in prompts:
        body = f"{escape(prompt['prompt'])} <mark>{escape(prompt['target'])}</mark>"
        parts.append(f"<h3>{escape(prompt['focus'])}</h3><pre>{body}</pre>")
    head = f'<meta charset="utf-8"><title>Audit of {escape(audit.task)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def _audit_sections(audit: Audit) -> list[Section]:
    sections = [
        Section(
            "Examples",
            f"By true answer; lengths in {audit.unit}.",
            ("split", "examples", "by answer", "lengths", "longer than a row"),
            [
                (
                    name,
                    str(size),
                    _pairs(audit.labels[name]),
                    ", ".join(f"{count} up to {edge}" for edge, count in audit.lengths[name] if count),
                    f"{audit.truncated[name]:.2%}" if name in audit.truncated else "not measured",
                )
                for name, size in audit.sizes.items()
            ],
        ),
        Section(
            "Feature values",
            "rho = P(y = y_s | s) counted from the examples. In flipped splits the asked rho is that of another label.",
            ("split", "feature", "value", "examples", "rho", "asked"),
            [(r.split, r.feature, r.value, str(r.count), f"{r.agree:.4f}", _asked(r.asked)) for r in audit.features],
        ),
        Section(
            "Mutual information of feature and label",
            "In bits; what the same number of examples would show by chance stands beside it.",
            ("split", "feature", "bits", "by chance"),
            [(a.split, a.feature, f"{a.information:.4f}", f"{a.bias:.4f}") for a in audit.associations],
        ),
        _evidence_section(audit.evidence),
        *(_token_section(audit.tokens, kind, *words) for kind, words in _TOKENS.items()),
        *_balance_sections(audit.balance),
        Section(
            "Duplicates and leakage",
            "Inputs that are the same but for case, spacing, punctuation and the feature's own words.",
            ("in", "and in", "examples", "such as"),
            [(leak.first, leak.second, str(leak.count), leak.example) for leak in audit.leaks],
        ),
        Section(
            "Near-duplicates of training",
            "Inputs with the words of a training example in any order, or in its order with other names and numbers.",
            ("split", "kind", "examples", "share of the split", "such as", "and in training"),
            [(n.split, n.kind, str(n.examples), f"{n.share:.1%}", n.uid, n.training) for n in audit.near],
        ),
    ]
    return [section for section in sections if section.rows]


def _evidence_section(evidence: Sequence[Evidence]) -> Section:
    return Section(
        "What tells the label",
        "In bits, of rows to train on. A property may be a shortcut where it tells more than shuffled labels do by "
        "chance; what it tells beyond the words of the texts, no reader of these could know.",
        ("property", "bits", "by chance", "more than chance", "beyond the words"),
        [
            (e.name, f"{e.bits:.4f}", f"{e.chance:.4f}", "yes" if e.passes else "no", f"{e.beyond_words:.4f}")
            for e in evidence
        ],
    )


def _different(column: Column) -> str:
    if column.different is None:
        return "no two the same" if column.unique else f"more than {MOST_COUNTED}"
    return str(column.different)


def _such_as(column: Column) -> str:
    return ", ".join(shown(value)[:24] for value, _ in column.counts.most_common(3))


def _balance_sections(balances: Sequence[Balance]) -> list[Section]:
    header = ("value", "label", "rows", "kept", "left out", "dark: kept")
    words = " ".join(f"{balance.words}." for balance in balances)
    return [
        Section(f"What balancing leaves out of {b.split}", words, header, balance_rows(b))
        for b in of_training(balances)
    ]


def _token_section(tokens: Sequence[TokenRow], kind: Kind, title: str, reading: str) -> Section:
    return Section(
        f"Words that tell the label: {title}",
        f"{reading} z-scores beyond what any word would reach by chance (level {LEVEL} over all words of the split).",
        ("split", "word", "label", "examples", "share of the label", "share in all", "z"),
        [
            (t.split, t.token, t.label, str(t.count), f"{t.share:.3f}", f"{t.base:.3f}", f"{t.z:.1f}")
            for t in [token for token in tokens if token.kind == kind][:_MOST_TOKENS]
        ],
    )


def _summary_sections(summary: Mapping[str, Any]) -> list[Section]:
    splits = summary["splits"].items()
    labels = [(name, str(split["examples"]), _pairs(split["labels"])) for name, split in splits]
    rho = [
        (name, feature, value, str(r["count"]), f"{r['realised']:.4f}", _asked(r["asked"]))
        for name, split in splits
        for feature, values in split["rho"].items()
        for value, r in values.items()
    ]
    slices = [(name, key, _pairs(counts)) for name, split in splits for key, counts in split["slices"].items()]
    dropped = [(reason, str(count)) for reason, count in summary["dropped"].items()]
    sections = [
        Section("Examples", f"{summary['kept']} in all.", ("split", "examples", "by answer"), labels),
        Section(
            "Feature values",
            "rho = P(y = y_s | s); in flipped splits of the swapped label.",
            ("split", "feature", "value", "examples", "rho", "asked"),
            rho,
        ),
        *_balance_sections(summary["balance"]),
        Section("Slices", "Examples by property.", ("split", "slice", "examples"), slices),
        Section("Rows left out", "Before splits were drawn.", ("reason", "rows"), dropped),
    ]
    return [section for section in sections if section.rows]


def _print(title: str, sections: Iterable[Section], notes: Iterable[str]) -> None:
    console = Terminal()
    console.rule(Text(title))
    for section in sections:
        table = Table(*section.header, title=section.title, caption=section.reading, title_justify="left")
        for row in section.rows:
            table.add_row(*row)
        console.print(table)
    for note in notes:
        console.print(f"note: {note}")


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _asked(rho: float | None) -> str:
    return "as it came" if rho is None else f"{rho:.4f}"
