"""What the tasks share whose spurious feature stands in the data already: from records to rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fit_jax.data.rho_sampling import Rows, Value
from fit_jax.focus.example import Example, Spurious


class Record(NamedTuple):
    """One source row.

    Attributes:
        uid: Unique within the data set.
        slots: Texts by slot name.
        label: Index of the true label.
        value: Name of the feature value.
        key: `text_key` of the text that must not part between splits.
        slices: As in `Example`.
        cluster: As in `Example`.
    """

    uid: str
    slots: Mapping[str, str]
    label: int
    value: str
    key: int
    slices: Mapping[str, str] = {}  # never written to
    cluster: str = ""


def annotated_rows(records: Iterable[Record], labels: tuple[str, ...], values: Sequence[Value]) -> Rows:
    """Rows of the records whose value is one of `values`; values that no record has are left out."""
    position = {value.name: v for v, value in enumerate(values)}
    chosen = [record for record in records if record.value in position]
    present = [value for value in values if any(record.value == value.name for record in chosen)]
    position = {value.name: v for v, value in enumerate(present)}
    spurious = [{value.feature: Spurious(value.name, value.outcome)} for value in present]

    def example(row: int, value: int) -> Example:
        record = chosen[row]
        tied = spurious[value]
        return Example(record.uid, record.slots, labels, record.label, tied, record.slices, cluster=record.cluster)

    return Rows(
        outcomes=labels,
        outcome=np.array([record.label for record in chosen], int),
        key=np.array([record.key for record in chosen], int),
        values=tuple(present),
        value=np.array([position[record.value] for record in chosen], int),
        example=example,
    )
