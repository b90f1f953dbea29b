"""Progress of a run as a checkpoint holds it."""

import copy
import json

import pytest

from fit_jax.training.metrics import Totals
from fit_jax.training.progress import Progress
from fit_jax.training.stopping import Stopping

PROGRESS = Progress(Stopping("loss", None, 0.5, 2, 1), Totals(2, 1.5, 4, 2, 60, 4, 2), 4, 300)

# Of the fields that take other values than whole numbers, what they take.
FITS = {"measure": str, "metrics_sha256": str} | dict.fromkeys(
    ("best_value", "loss", "rehearsal_loss", "rehearsal_divergence", "uneven"), float | int
)


def wrong_values():
    """The progress with each value in turn replaced by others that cannot stand there, left out or added to."""
    whole = PROGRESS.to_json() | {"loader": {"stream": {"lanes": 1, "window": 9}, "marks": [[0, 0, 2]]}}

    def places(values, at=()):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield (*at, key)
            if isinstance(value, dict | list):
                yield from places(value, (*at, key))

    for *above, last in places(whole):
        for wrong in (-1, "x", [None], {"a": None}, True, 1e400, 2.5):
            changed = copy.deepcopy(whole)
            inner = changed
            for key in above:
                inner = inner[key]
            right = inner[last]
            fits = FITS.get(last)
            if fits and isinstance(wrong, fits) and wrong is not True and wrong not in (-1, 1e400):
                continue
            if wrong == right:
                continue
            inner[last] = wrong
            yield changed
    yield from ([], None, 3, {}, whole | {"more": 1}, {k: v for k, v in whole.items() if k != "step"})


def test_progress_is_read_whole_or_not_at_all():
    assert Progress.from_json(json.loads(json.dumps(PROGRESS.to_json())), 4) == PROGRESS
    with pytest.raises(ValueError, match="of step 4"):
        Progress.from_json(PROGRESS.to_json(), 5)
    for values in wrong_values():
        with pytest.raises(ValueError):
            print(values, Progress.from_json(values, 4))


def test_progress_of_a_version_without_rehearsal_is_read():
    values = json.loads(json.dumps(PROGRESS.to_json()))
    del values["metrics_sha256"]
    values["totals"] = {k: v for k, v in values["totals"].items() if not k.startswith("rehearsal_") and k != "uneven"}
    assert Progress.from_json(values, 4) == PROGRESS
