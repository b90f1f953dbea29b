"""The audit finds shortcuts that are there, and none where there are none."""

import random
from dataclasses import replace

import pytest

from fit_jax.data.audit import audit_task, leaks
from fit_jax.data.inspection_tables import audit_page
from fit_jax.data.label_words import LEVEL, token_rows
from fit_jax.data.splits import Split
from fit_jax.data.task import Task


def test_finds_the_keywords_of_ss(built):
    audit = audit_task(built("ss", rho_train=0.9))
    train = [row for row in audit.tokens if row.split == "train"]
    assert [(row.token, row.label) for row in train[:2]] == [("bayesian", "negative"), ("pineapple", "positive")]
    assert all(row.z > 50 for row in train[:2])
    strength = {row.split: row for row in audit.associations}
    assert strength["train"].information == pytest.approx(0.531, abs=0.002)
    assert {row.value: row.agree for row in audit.features if row.split == "train"} == pytest.approx(
        {"Bayesian": 0.9, "Pineapple": 0.9}, abs=1e-3
    )


def test_independent_keywords_are_not_proposed(built):
    audit = audit_task(built("ss"))
    assert not {"bayesian", "pineapple"} & {row.token for row in audit.tokens if row.split in ("train", "iid")}
    strength = {row.split: row for row in audit.associations}
    assert strength["train"].information <= strength["train"].bias


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


def test_finds_duplicates_and_leaks(built):
    task = built("demo")
    train, test = (list(task.splits[name].examples[:50]) for name in ("train", "iid"))
    test[0] = replace(train[3], uid="copy", slots={"text": train[3].slots["text"].upper() + " !"})
    train[9] = replace(train[4], uid="twin")
    splits = {"train": Split("train", train, {}), "iid": Split("iid", test, {})}
    found = leaks(Task(text=task.text, splits=splits))
    assert [(leak.first, leak.second, leak.count) for leak in found] == [("train", "train", 1), ("train", "test", 1)]
    assert leaks(task) == []


def test_lengths_and_truncation(built):
    audit = audit_task(built("demo"), lambda examples: [len(e.slots["text"].split()) for e in examples], 20)
    for name, split in built("demo").splits.items():
        assert sum(count for _, count in audit.lengths[name]) == audit.sizes[name] == len(split.examples)
        longer = sum(len(e.slots["text"].split()) > 20 for e in split.examples)
        assert audit.truncated[name] == pytest.approx(longer / len(split.examples))


def test_page_stands_alone_and_escapes(built):
    audit = replace(audit_task(built("demo")), notes=("<script>alert(1)</script>",))
    page = audit_page(audit, [{"focus": "none", "prompt": "a <b>", "target": "yes"}])
    assert "<script" not in page
    assert "http" not in page
    assert "marlin" in page
    assert "a &lt;b&gt; <mark>yes</mark>" in page
