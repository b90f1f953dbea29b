"""Task bbq: counts of the official files, both ways to the target, features and slices."""

import json
from collections import Counter

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed
from fit_jax.data.row_readers import read_jsonl
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.bbq_source import (
    CATEGORIES,
    read_category,
    read_metadata,
    target_from_groups,
    target_from_metadata,
)
from fit_jax.errors import InputError

# Rows, rows with a determinable target, and of the disambiguated ones those with label = target and label != target.
COUNTS = {
    "Age": (3680, 3680, 920, 920),
    "Disability_status": (1556, 1556, 394, 384),
    "Gender_identity": (5672, 5656, 1414, 1414),
    "Nationality": (3080, 3080, 770, 770),
    "Physical_appearance": (1576, 1576, 426, 362),
    "Race_ethnicity": (6880, 6880, 1720, 1720),
    "Religion": (1200, 1200, 300, 300),
    "SES": (6864, 6864, 1752, 1680),
    "Sexual_orientation": (864, 864, 216, 216),
    "Race_x_SES": (11160, 11160, 2790, 2790),
    "Race_x_gender": (15960, 15960, 3996, 3984),
}
SINGLE = [category for category, features in CATEGORIES.items() if len(features) == 1]


@pytest.fixture(scope="module")
def read(data_dir):
    config = TaskConfig(name="bbq", data_dir=str(data_dir))
    metadata = read_metadata(config)

    def category(name):
        bad, dropped = Malformed("error"), Counter()
        items = read_category(config, name, metadata, bad, dropped)
        bad.settle()
        return items, dropped

    return category


@pytest.mark.parametrize("category", CATEGORIES)
def test_counts_of_the_official_files(read, category):
    items, dropped = read(category)
    known = [item for item in items if item.slices["condition"] == "disambig"]
    agree = sum(item.label == item.target for item in known)
    assert (len(items) + dropped.total(), len(items), agree, len(known) - agree) == COUNTS[category]
    assert all(item.label == item.unknown != item.target for item in items if item.slices["condition"] == "ambig")


def test_both_ways_to_the_target_agree_on_single_categories(data_dir):
    metadata = read_metadata(TaskConfig(name="bbq", data_dir=str(data_dir)))
    for category in SINGLE:
        for _, row in read_jsonl(data_dir / "bbq" / f"{category}.jsonl", Malformed("error")):
            assert target_from_groups(row) == target_from_metadata(metadata[category][row["example_id"]])


def test_sixteen_rows_are_dropped_and_doubtful_ones_flagged(built):
    task = built("bbq")
    assert task.dropped == {"Gender_identity: no stereotyped answer can be determined": 16}
    assert any(note.startswith("16 rows dropped: Gender_identity") for note in task.notes)
    assert any("SES question 8" in note and "480 rows" in note for note in task.notes)
    examples = [e for split in task.splits.values() for e in split.examples]
    assert all((e.slices["question"] == "SES 8") == (e.slices.get("target") == "doubtful") for e in examples)
    assert {e.slices["polarity"] for e in examples} == {"neg", "nonneg"}
    assert {e.slices["condition"] for e in examples} == {"ambig", "disambig"}


def test_intersectional_rows_have_the_features_that_differ(data_dir):
    config = TaskConfig(name="bbq", data_dir=str(data_dir), categories=("Race_x_SES", "Race_x_gender"))
    task = build_task(config, 0)
    assert set(task.features) == {"race_ethnicity", "ses", "gender_identity"}
    features = Counter(tuple(e.spurious) for e in task.splits["train"].examples)
    assert set(features) == {
        ("race_ethnicity",),
        ("ses",),
        ("gender_identity",),
        ("race_ethnicity", "ses"),
        ("race_ethnicity", "gender_identity"),
    }
    both = next(e for e in task.splits["train"].examples if len(e.spurious) == 2)
    assert len({spurious.label for spurious in both.spurious.values()}) == 1


def test_free_text_differs_in_the_prompt_alone(built):
    choice, free = (built(name, categories=("Age",)) for name in ("bbq", "bbq_nlg"))
    assert choice.splits["high"].examples == free.splits["high"].examples
    assert "{ans0}" in choice.text.input_template
    assert "{ans0}" not in free.text.input_template
    assert (choice.text.free, free.text.free) == (False, True)


def test_wrong_categories(data_dir, tmp_path):
    with pytest.raises(InputError, match="no BBQ category 'Ages'"):
        build_task(TaskConfig(name="bbq", data_dir=str(data_dir), categories=("Ages",)), 0)
    with pytest.raises(InputError, match="hold unseen features"):
        build_task(TaskConfig(name="bbq", data_dir=str(data_dir), categories=("Religion",)), 0)
    (tmp_path / "bbq").mkdir()
    (tmp_path / "bbq" / "Race_x_SES.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"Race_x_SES needs additional_metadata.csv"):
        build_task(TaskConfig(name="bbq", data_dir=str(tmp_path), categories=("Race_x_SES",)), 0)


def test_malformed_rows_are_counted(data_dir, tmp_path):
    (tmp_path / "bbq").mkdir()
    lines = (data_dir / "bbq" / "Age.jsonl").read_text().splitlines()[:400]
    broken = json.loads(lines[0])
    wrong = [{**broken, "label": 7}, {**broken, "context": " "}, {**broken, "question": "x" * 300_000}, broken]
    wrong[-1] = {**broken, "answer_info": {}}
    text = "\n".join([*lines, *map(json.dumps, wrong), "{not json", "[1]", json.dumps(json.loads(lines[0]))])
    (tmp_path / "bbq" / "Age.jsonl").write_text(text)
    fields = {"name": "bbq", "data_dir": str(tmp_path), "categories": ("Age",)}
    with pytest.raises(
        InputError, match=r"7 malformed rows: .*Age.jsonl:401: label 7 is none of 0, 1, 2; .*empty text.*; \.\.\.; fix"
    ):
        build_task(TaskConfig(**fields), 0)
    task = build_task(TaskConfig(**fields, malformed="skip"), 0)
    assert task.notes[0].startswith("7 malformed rows skipped")
