"""Tasks built once for all tests of this folder, and a table of one's own."""

import json
import random
from functools import cache

import pytest
import yaml

from fit_jax.config import TaskConfig
from fit_jax.data.tasks import build_task

from ..tickets import TICKETS


@pytest.fixture(scope="session")
def built(data_dir):
    """Builds a task of the real files by name; each only once."""
    return cache(lambda name, **fields: build_task(TaskConfig(name=name, data_dir=str(data_dir), **fields), 0))


@pytest.fixture
def own(tmp_path):
    """A table in which sender and queue tell the label, the latter as the text does; `hour` and `id` do not."""
    rng = random.Random(0)
    rows = []
    for n in range(900):
        urgent = rng.random() < 0.5
        topic = urgent == (rng.random() < 0.9)
        sender = "shop" if (rng.random() < 0.85) == urgent else "press"
        text = f"{'the server is down' if topic else 'a bill was not sent'} at Marlin {n}" + " at 7pm" * (
            sender == "shop"
        )
        row = {"id": f"r{n}", "text": text, "urgent": ("no", "yes")[urgent], "sender": sender, "lang": "en"}
        rows.append(row | {"queue": "a" if topic else "b", "hour": rng.randrange(2400) / 100, "desk": str(n % 3)})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    feature = {"key": "sender", "column": "sender"}
    description = {**TICKETS, "input": "{sender}\n{text}", "features": [feature], "uid": "id"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(description))
    return tmp_path / "own.yaml"
