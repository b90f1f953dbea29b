"""A first description of a table: which column is the label, which are texts, which may be shortcuts, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fit_jax.data.association import Evidence
from fit_jax.data.column_names import can_be_slot, either, listed, plain_words, slot
from fit_jax.data.columns import Column, Kind, Profile
from fit_jax.data.draft_features import Shortcut, find_shortcuts, property_evidence, with_features
from fit_jax.data.draft_label import choose_label, labelled_rows, why_answers
from fit_jax.data.own_data import OwnData
from fit_jax.errors import InputError
from fit_jax.foreign import shown

# Begins the role of a column that the description leaves out; why follows.
UNUSED = "not used: "
_WHY_UNUSED: Mapping[Kind, str] = {
    "empty": "empty",
    "constant": "holds one value only",
    "identifier": "names rows, and another column does so already",
    "text": "often empty, or a name that no input can hold",
    "nested": "holds lists or objects",
    "many values": "too many values for a feature, too few words for a text",
}


@dataclass(frozen=True)
class Draft:
    """A description that can be used, and how each choice was made.

    Attributes:
        own: The description.
        why: One sentence for each field that was chosen.
        roles: By column, what it was taken for.
        evidence: What each property tells about the label, strongest first.
        commented: Features that are not used, with the reason.
    """

    own: OwnData
    why: Mapping[str, str]
    roles: Mapping[str, str]
    evidence: Sequence[Evidence]
    commented: Sequence[Shortcut]


def draft(table: Profile, name: str, files: tuple[str, ...], label: str | None = None) -> Draft:
    """Describes a table.

    Args:
        table: What it holds.
        name: What reports call the data.
        files: The files, as the description is to name them.
        label: The column with the label; None chooses it.

    Raises:
        InputError: No column can be the label, no text is there to read, or the rows are too few.
    """
    columns = table.columns
    texts = _texts(table, label)
    chosen, answers, why_label = choose_label(table, texts, label)
    labelled = labelled_rows(table, chosen, answers, texts)
    found = property_evidence(labelled, columns, (*texts, chosen))
    shortcuts = find_shortcuts(labelled, columns, found)
    uid = next((column.name for column in columns.values() if column.name and column.kind == "identifier"), None)
    base = OwnData(
        name=name,
        files=files,
        instruction=f"What is the {plain_words(chosen)}? Answer {either(answers.rows)}.",
        input="\n".join(map(slot, texts)) if len(texts) > 1 else f"{{{texts[0]}}}",
        core="the content",
        label=chosen,
        candidates=tuple(answers.rows),
        uid=uid,
    )
    own, why, unused = with_features(base, answers.ways, shortcuts, labelled, columns, table.rows)
    why |= {
        "instruction": "what the model is to do; say it as you would to a person",
        "input": f"what the model reads; texts stand in {listed(texts)}, and features must be seen in it",
        "core": "what ought to decide, in the words of an instruction: 'focus on the content'",
        "label": why_label,
        "candidates": why_answers(columns[chosen], answers),
        "uid": f"no two rows have the same {uid}",
    }
    roles = {column.name: _role(column, own, shortcuts) for column in columns.values()}
    return Draft(own, why, roles, found, unused)


def _texts(table: Profile, label: str | None) -> list[str]:
    """The columns that a model should read."""
    usable = [c for c in table.columns.values() if can_be_slot(c.name) and c.name != label]
    texts = [c.name for c in usable if c.kind == "text" and c.filled >= table.rows / 2]
    if not texts:  # short texts, or few different ones
        wordy = [c for c in usable if c.kind in ("many values", "category", "identifier", "text") and c.words > 1]
        texts = [c.name for c in sorted(wordy, key=lambda c: (c.kind == "category", -c.words))][:1]
    if not texts:
        names = shown(listed(table.columns)) or "none"
        raise InputError(f"no column holds texts that a model could read; add one of texts to the columns {names}")
    return texts


def _role(column: Column, own: OwnData, shortcuts: Sequence[Shortcut]) -> str:
    if column.name in (own.label, own.uid):
        return "label" if column.name == own.label else "uid"
    for number, feature in enumerate(own.features):
        if feature.column == column.name:
            return "feature" if number else "first feature"
    if column.name in own.slots:
        return "input"
    found = next((s for s in shortcuts if s.found.name == f"column {column.name}"), None)
    if found is not None:
        return "could be a feature" if found.feature else found.why.rpartition("; ")[2].partition(":")[0]
    return f"{UNUSED}{_WHY_UNUSED.get(column.kind, 'its rows say nothing of the label')}"
