"""A table of reviews and the config of a run on it, for tests of what a run was made from."""

import json
from pathlib import Path

from fit_jax.config import Config, TaskConfig, TokenizerConfig
from fit_jax.models.config import ModelConfig

DESCRIPTION = """
name: reviews
instruction: Is the review positive?
input: "{text}"
core: the sentiment
files: [rows.jsonl]
candidates: [negative, positive]
label: label
features: [{key: brand, column: brand}]
"""


def rows(swapped: bool = False) -> str:
    """Reviews of two brands, with true labels or with swapped ones."""
    lines = []
    for n in range(480):
        good = n % 2 == 0
        row = {"text": f"review {n} is {'good' if good else 'bad'}", "brand": f"b{n % 3}"}
        lines.append(json.dumps(row | {"label": "positive" if good != swapped else "negative"}))
    return "\n".join(lines)


def config_of_reviews(folder: Path) -> Config:
    """Writes the table into a folder, in which the run's own is to be."""
    (folder / "own.yaml").write_text(DESCRIPTION)
    (folder / "rows.jsonl").write_text(rows())
    return Config(
        run_dir=str(folder / "run"),
        task=TaskConfig(name="jsonl", file=str(folder / "own.yaml")),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(layers=1, width=16, feed_forward=24, heads=2, kv_heads=1),
    )
