"""A drafted description as a YAML file that says in comments why each choice was made."""

import textwrap
from dataclasses import MISSING, fields
from typing import Any

import yaml

from fit_jax.data.draft import UNUSED, Draft
from fit_jax.data.own_data import FeatureConfig, OwnData
from fit_jax.foreign import printable, shown

_WIDTH = 110


def draft_text(draft: Draft, head: str, malformed: str | None) -> str:
    """The YAML of a description.

    Args:
        draft: The description.
        head: What to say of the table, at the top.
        malformed: What is wrong with rows of it that cannot be used; None where all can.
    """
    own = draft.own
    parts = [_comment(head)]
    for name, value in _given(OwnData, own).items():
        if name == "features":
            continue
        why = draft.why.get(name)
        if name in ("trim", "ignore_case", "ignore_form"):
            why = "values stand in several spellings, which are one by this"
        parts.append((_comment(why) if why else "") + _field(name, value))
    if malformed:
        end = "" if malformed.endswith("...") else "."
        why = f"{malformed}{end} They are left out; write error to see them all in a file."
        parts.append(_comment(why) + _field("malformed", "skip"))
    unused = [
        f"{shown(name)} ({role.removeprefix(UNUSED)})" for name, role in draft.roles.items() if role.startswith(UNUSED)
    ]
    if unused:
        parts.append(_comment(f"Columns not used: {', '.join(unused)}"))
    parts.append(_ranking(draft))
    parts.append("features:\n")
    for feature in own.features:
        parts.append(_comment(draft.why[f"feature {feature.key}"], "  "))
        if feature.values:
            parts.append(_comment(f"values: {draft.why['values']}", "  "))
        parts.append(_item(feature, "  "))
    for shortcut in draft.commented:
        if shortcut.feature:
            parts.append(_comment(f"Not used: {shortcut.why}", "  "))
            parts.append(_item(shortcut.feature, "  # "))
        else:
            parts.append(_comment(f"Not used: {shortcut.found.name}: {shortcut.why}", "  "))
    return "".join(parts)


def _ranking(draft: Draft) -> str:
    """What every property tells about the label, as a comment."""
    rows = [
        f"{found.name}: {found.bits:.3f}, {found.chance:.3f}, {found.beyond_words:.3f}"
        + ("" if found.passes else " (no more than chance)")
        for found in draft.evidence
    ]
    reading = "What tells the label, in bits: measured, by chance (labels shuffled), beyond the words of the texts."
    return _comment(reading) + "".join(_comment(row, "", "#   ") for row in rows)


def _given(cls: type, value: object) -> dict[str, Any]:
    """The fields that differ from their defaults, and the label, which a reader looks for."""
    found = {}
    for f in fields(cls):
        default = f.default if f.default_factory is MISSING else f.default_factory()
        given = getattr(value, f.name)
        if given != default or f.name == "label":
            found[f.name] = list(given) if isinstance(given, tuple) else given
    return found


def _field(name: str, value: object) -> str:
    """One line of the top level."""
    style = '"' if isinstance(value, str) and "\n" in value else None
    plain = yaml.safe_dump(value, allow_unicode=True, width=10**6, default_flow_style=True, default_style=style)
    return f"{name}: {plain.removesuffix('...' + chr(10))}"


def _item(feature: FeatureConfig, indent: str) -> str:
    """A feature, as an item of the list."""
    shown = yaml.safe_dump([_given(FeatureConfig, feature)], allow_unicode=True, sort_keys=False, width=10**6, indent=2)
    return textwrap.indent(shown, indent)


def _comment(text: str, indent: str = "", mark: str = "# ") -> str:
    """Lines of a comment, whatever the names of columns hold."""
    plain = printable(" ".join(text.split()))
    lines = textwrap.wrap(plain, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{indent}{mark}{line}\n" for line in lines)
