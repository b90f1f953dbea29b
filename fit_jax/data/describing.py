"""`data describe`: looks at a table and drafts its description."""

import os
from pathlib import Path
from typing import NamedTuple

from fit_jax.data.columns import Profile, profile
from fit_jax.data.draft import Draft, draft
from fit_jax.data.draft_text import draft_text
from fit_jax.data.malformed import Malformed, some_of
from fit_jax.data.own_rows import OwnReader
from fit_jax.data.row_stores import FORMATS, table_rows
from fit_jax.errors import InputError
from fit_jax.foreign import is_text, named, shown


class Described(NamedTuple):
    """What was found in a table, and the YAML that describes it."""

    table: Profile
    draft: Draft
    text: str
    notes: tuple[str, ...]


def describe(path: Path, out: Path, label: str | None = None) -> Described:
    """Describes a table; writes nothing.

    The file is read twice: to see what the columns hold, and to count the rows that the description cannot use. Of a
    large one a sample of rows is looked at in more detail.

    Args:
        path: A file of one of the formats that data of one's own may have.
        out: Where the description will stand, which names the file from there.
        label: The column with the label; None chooses it.

    Raises:
        InputError: The file cannot be read, or no description can be made of it.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{named(path)}: is none of {', '.join(FORMATS)}; save the table as one of them")
    unread = Malformed("skip")
    table = profile(table_rows(path, unread))
    names = list(table.columns)
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise InputError(
            f"{named(path)}: has the one column {shown(names[0])!r}; save it with commas, or with tabs as .tsv"
        )
    if not table.rows:
        reason = "; ".join(unread.settle()) or f"{named(path)}: holds no row"
        raise InputError(f"{reason}; name a table with a header line and rows")
    try:
        file = os.path.relpath(path, out.parent)
        made = draft(table, path.stem if is_text(path.stem) else "table", (file,), label)
    except InputError as error:
        raise InputError(f"{named(path)}: {error}") from error
    bad = Malformed("skip")
    reader = OwnReader(made.own, out.parent)
    for where, row in table_rows(path, bad):
        reader.parse(row, where, bad)
    looked_at = len(table.sample)
    head = f"{path.name}: {table.rows:,} rows" + (f", {looked_at:,} looked at" if looked_at < table.rows else "")
    head += f"; columns: {some_of(f'{name} ({role})' for name, role in made.roles.items())}"
    notes = bad.settle()
    if looked_at < table.rows:
        notes += (f"values were counted in all {table.rows:,} rows; what tells the label, in {looked_at:,} at random",)
    if made.own.features[0].insert:
        notes += (made.why[f"feature {made.own.features[0].key}"],)
    if "test" in made.why:
        notes += (f"test: {made.own.test}, the {made.why['test']}",)
    return Described(table, made, draft_text(made, head, str(bad) if bad.count else None), notes)
