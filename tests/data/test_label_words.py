"""Words that tell the label, and no more of them than there are."""

import random
from dataclasses import replace

from fit_jax.config import TaskConfig
from fit_jax.data.label_words import LEVEL, token_rows
from fit_jax.data.tasks.jsonl import raw_table


def test_finds_negation_in_smnli(built):
    rows, _, _ = token_rows("train", built("smnli").splits["train"].examples)
    assert {"no", "not", "never", "nothing"} <= {row.token for row in rows if row.label == "contradiction"}


def test_finds_connectives_in_shans(built):
    rows, _, _ = token_rows("train", built("shans").splits["train"].examples[:6000])
    assert {"or", "if", "unless"} <= {row.token for row in rows if row.label == "non-entailment"}


def test_shuffled_labels_give_no_proposals(built):
    examples = built("ss").splits["train"].examples[:2000]
    alarms = 0
    for seed in range(20):
        labels = [example.label for example in examples]
        random.Random(seed).shuffle(labels)
        rows, tested, _ = token_rows("x", [replace(e, label=y) for e, y in zip(examples, labels)])
        assert tested > 300
        alarms += bool(rows)
    # Binomial(20, LEVEL): more than two alarms have a probability below 0.2 percent.
    assert LEVEL == 0.01
    assert alarms <= 2


def test_words_are_parted_by_what_they_are(own):
    rows, _, _ = token_rows("train", raw_table(TaskConfig(name="jsonl", file=str(own))).task.splits["train"].examples)
    kinds = {row.token: row.kind for row in rows}
    assert {token for token, kind in kinds.items() if kind == "shortcut"} == {"shop", "press", "7pm"}
    assert {"the", "is", "down", "a", "was", "not"} <= {
        token for token, kind in kinds.items() if kind == "function word"
    }
    assert {token for token, kind in kinds.items() if kind == "content"} == {"server", "bill", "sent"}
