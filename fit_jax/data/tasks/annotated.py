"""What the tasks share whose spurious features stand in the data already: from records to rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fit_jax.data.rho_sampling import Rows, Value, combinations_of
from fit_jax.focus.example import Example, Spurious


class Record(NamedTuple):
    """One source row.

    Attributes:
        uid: Unique within the data set.
        slots: Texts by slot name.
        label: Index of the true label.
        values: By feature, the name of its value.
        key: `text_key` of the text that must not part between splits.
        slices: As in `Example`.
        cluster: As in `Example`.
    """

    uid: str
    slots: Mapping[str, str]
    label: int
    values: Mapping[str, str]
    key: int
    slices: Mapping[str, str] = {}  # never written to
    cluster: str = ""


def annotated_rows(records: Iterable[Record], labels: tuple[str, ...], values: Sequence[Value]) -> Rows:
    """Rows of the records that have one of `values` of each of their features, which are drawn together.

    Values that no such record has are left out.
    """
    features = tuple(dict.fromkeys(value.feature for value in values))
    known = {(value.feature, value.name) for value in values}
    chosen = [record for record in records if all((f, record.values[f]) in known for f in features)]
    found = {(feature, record.values[feature]) for record in chosen for feature in features}
    present = tuple(value for value in values if (value.feature, value.name) in found)
    combinations = [[present[v] for v in combination] for combination in combinations_of(present)]
    position = {tuple(value.name for value in combination): c for c, combination in enumerate(combinations)}
    spurious = [{value.feature: Spurious(value.name, value.outcome) for value in c} for c in combinations]

    def example(row: int, combination: int) -> Example:
        record = chosen[row]
        tied = spurious[combination]
        return Example(record.uid, record.slots, labels, record.label, tied, record.slices, cluster=record.cluster)

    return Rows(
        outcomes=labels,
        outcome=np.array([record.label for record in chosen], int),
        key=np.array([record.key for record in chosen], int),
        values=present,
        value=np.array([position[tuple(record.values[f] for f in features)] for record in chosen], int),
        example=example,
        joint=len(features) > 1,
    )
