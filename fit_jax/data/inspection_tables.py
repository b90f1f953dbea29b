"""What inspect and audit found, as tables in the terminal and as one HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.text import Text

from fit_jax.data.association import Evidence
from fit_jax.data.audit import Audit
from fit_jax.data.balance import Balance, balance_picture, balance_rows, of_training
from fit_jax.data.columns import MOST_COUNTED, Column, is_missing
from fit_jax.data.describing import Described
from fit_jax.data.joint_sampling import correlation_table
from fit_jax.data.label_words import LEVEL, Kind, TokenRow
from fit_jax.data.task import Task
from fit_jax.focus.example import Example
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES, focus_label, spec_for
from fit_jax.foreign import shown
from fit_jax.html import as_html, cut, page
from fit_jax.tables import Table
from fit_jax.terminal import Terminal

_MOST_TOKENS = 30
# Values of a column that are shown, and characters of each.
_SUCH_AS, _LONGEST = 3, 32
# By kind of word, a title and how to read it.
_TOKENS: Mapping[Kind, tuple[str, str]] = {
    "shortcut": ("likely shortcuts", "Values of the features, names, numbers and codes."),
    "function word": (
        "function words",
        "How a text is put, with its negation: shortcuts, unless the task is about them.",
    ),
    "content": ("content", "Signal, as a rule: what the label is about. A word that should not decide is a shortcut."),
}


def shown_prompts(task: Task, encoder: PromptEncoder) -> list[dict[str, str]]:
    """One training example under each focus instruction: prompt, target (what carries loss) and the focus label."""
    example: Example = task.splits["train"].examples[0]
    feature = next(iter(example.spurious), "")
    prompts = []
    for focus_type in FOCUS_TYPES if feature else FOCUS_TYPES[:2]:  # without a feature: none, and focus on the core
        spec = spec_for(focus_type, feature)
        paraphrase = paraphrases_of(task.text.name, focus_type, "train")[0]
        text = paraphrase and instruction(task.text, spec, paraphrase)
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
        (
            c.name,
            c.kind,
            f"{c.filled / found.table.rows:.0%}",
            _different(c),
            _such_as(c, found.table.sample),
            found.draft.roles[c.name],
        )
        for c in found.table.columns.values()
    ]
    sections = [
        Table(
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
    parts = [section.html() for section in _audit_sections(audit)]
    for number, balance in enumerate(of_training(audit.balance)):
        title = f'<h2 id="picture-{number}">Picture of what balancing leaves out</h2>'
        picture = f'<div class="wide">{balance_picture(balance)}</div>'
        parts.append(f'<section class="card" aria-labelledby="picture-{number}">{title}{picture}</section>\n')
    parts.append('<section class="card" aria-labelledby="prompts"><h2 id="prompts">Prompts and targets</h2>')
    parts.append('<p class="soft">The marked tokens carry the loss.</p>')
    for prompt in prompts:
        body = f"{as_html(prompt['prompt'])} <mark>{as_html(prompt['target'])}</mark>"
        parts.append(f'<h3>{as_html(prompt["focus"])}</h3><pre class="prompt">{body}</pre>')
    parts.append("</section>\n")
    return page(f"Audit of {audit.task}", " ".join(audit.notes), "".join(parts))


def _audit_sections(audit: Audit) -> list[Table]:
    sections = [
        Table(
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
        Table(
            "Feature values",
            "rho = P(y = y_s | s) counted from the examples. In flipped splits the asked rho is that of another label.",
            ("split", "feature", "value", "examples", "rho", "asked"),
            [(r.split, r.feature, r.value, str(r.count), f"{r.agree:.4f}", _asked(r.asked)) for r in audit.features],
        ),
        Table(
            "Mutual information of feature and label",
            "In bits; what the same number of examples would show by chance stands beside it.",
            ("split", "feature", "bits", "by chance"),
            [(a.split, a.feature, f"{a.information:.4f}", f"{a.bias:.4f}") for a in audit.associations],
        ),
        _evidence_section(audit.evidence),
        *(_token_section(audit.tokens, kind, *words) for kind, words in _TOKENS.items()),
        *_balance_sections(audit.balance),
        Table(
            "Duplicates and leakage",
            "Inputs that are the same except for case, spacing, punctuation and the feature's own words.",
            ("in", "and in", "examples", "such as"),
            [(leak.first, leak.second, str(leak.count), leak.example) for leak in audit.leaks],
        ),
        Table(
            "Near-duplicates of training",
            "Inputs with the words of a training example in any order, or in its order with other names and numbers.",
            ("split", "kind", "examples", "share of the split", "such as", "and in training"),
            [(n.split, n.kind, str(n.examples), f"{n.share:.1%}", n.uid, n.training) for n in audit.near],
        ),
    ]
    return [replace(section, texts=len(section.header)) for section in sections if section.rows]


def _evidence_section(evidence: Sequence[Evidence]) -> Table:
    return Table(
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


def _such_as(column: Column, sample: Sequence[Mapping[str, Any]]) -> str:
    """Values of a column, the most frequent ones where they were counted; texts in quotes, and cut."""
    values: list[Any] = [value for value, _ in column.counts.most_common(_SUCH_AS)]
    if not values:
        values = [row[column.name] for row in sample[:_SUCH_AS] if not is_missing(row.get(column.name))][:1]
    if column.kind in ("number", "date"):
        return ", ".join(shown(value) for value in values)
    return ", ".join(f"'{cut(shown(value), _LONGEST)}'" for value in values)


def _balance_sections(balances: Sequence[Balance]) -> list[Table]:
    header = ("value", "label", "rows", "kept", "left out", "dark: kept")
    words = " ".join(f"{balance.words}." for balance in balances)
    return [
        Table(f"What balancing leaves out of {b.split}", words, header, balance_rows(b)) for b in of_training(balances)
    ]


def _token_section(tokens: Sequence[TokenRow], kind: Kind, title: str, reading: str) -> Table:
    return Table(
        f"Words that tell the label: {title}",
        f"{reading} z-scores beyond what any word would reach by chance (level {LEVEL} over all words of the split).",
        ("split", "word", "label", "examples", "share of the label", "share in all", "z"),
        [
            (t.split, t.token, t.label, str(t.count), f"{t.share:.3f}", f"{t.base:.3f}", f"{t.z:.1f}")
            for t in [token for token in tokens if token.kind == kind][:_MOST_TOKENS]
        ],
    )


def _summary_sections(summary: Mapping[str, Any]) -> list[Table]:
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
        Table("Examples", f"{summary['kept']} in all.", ("split", "examples", "by answer"), labels),
        Table(
            "Feature values",
            "rho = P(y = y_s | s); in flipped splits of the swapped label. With two labels these are low splits again.",
            ("split", "feature", "value", "examples", "rho", "asked"),
            rho,
        ),
        correlation_table({name: split["correlation"] for name, split in splits}),
        *_balance_sections(summary["balance"]),
        Table("Slices", "Examples by property.", ("split", "slice", "examples"), slices),
        Table("Rows left out", "Before splits were drawn.", ("reason", "rows"), dropped),
    ]
    return [replace(section, texts=len(section.header)) for section in sections if section.rows]


def _print(title: str, sections: Iterable[Table], notes: Iterable[str]) -> None:
    console = Terminal()
    console.rule(Text(title))
    for section in sections:
        console.print(section.terminal())
    for note in notes:
        console.print(f"note: {note}")


def _pairs(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def _asked(rho: float | None) -> str:
    return "as it came" if rho is None else f"{rho:.4f}"
