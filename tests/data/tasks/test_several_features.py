"""Tasks with several features drawn together: of the files, of one's own data, kept and built."""

import json
import random
from collections import Counter

import numpy as np
import pytest
import yaml

from fit_jax.config import TaskConfig
from fit_jax.data.array_record import config_name
from fit_jax.data.joint_sampling import correlations
from fit_jax.data.kept_task import keep_task, kept_task
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.ss import TEXT as SS_TEXT
from fit_jax.errors import InputError

from ...tickets import TICKETS

CHOSEN = {"ss": ("keyword", "tag"), "smnli": ("genre", "wording")}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A table whose channel and agent both go with the label, some rows of which have no agent."""
    folder, rng = tmp_path_factory.mktemp("own"), random.Random(0)
    rows = []
    for n in range(4000):
        urgent = rng.random() < 0.45
        channel = rng.choices(("phone", "email", "form"), (5, 3, 2) if urgent else (3, 4, 3))[0]
        agent = rng.choices(("Ada", "Ben", ""), (6, 3, 1) if urgent else (3, 6, 1))[0]
        text = f"order {n} by {channel}{f' for {agent}' if agent else ''}, {'now' if urgent else 'some day'}"
        rows.append({"text": text, "urgent": "yes" if urgent else "no", "channel": channel, "agent": agent})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    features = [
        {"key": "channel", "column": "channel"},
        {"key": "agent", "column": "agent", "name": "the agent"},
        {"key": "word", "keywords": ["now", "some"]},
    ]
    (folder / "own.yaml").write_text(yaml.safe_dump({**TICKETS, "input": "Ticket: {text}", "features": features}))
    return folder / "own.yaml"


@pytest.fixture(params=["ss", "smnli", "jsonl"])
def task(request, built, own):
    if request.param == "jsonl":
        return build_task(TaskConfig(name="jsonl", file=str(own), features=("channel", "agent")), 0)
    return built(request.param, features=CHOSEN[request.param])


def test_each_feature_has_its_rho_and_is_independent_given_the_label(task):
    for split in task.splits.values():
        examples = list(split.examples)
        labels = len(examples[0].candidates)
        flipped = split.name == "flipped"
        assert split.rho.keys() == {*task.features} == {*examples[0].spurious}
        asked = {"high": 0.9, "low": 0.1, "flipped": 0.9}.get(split.name, 1 / labels)
        for feature, values in split.rho.items():
            for value, rho in values.items():
                held = [e for e in examples if e.spurious[feature].value == value]
                hits = np.mean([e.label == (e.spurious[feature].label + flipped) % labels for e in held])
                assert (rho.asked, rho.count) == (pytest.approx(asked), len(held))
                assert rho.realised == pytest.approx(hits)
                assert abs(hits - asked) <= 1 / len(held)
        codes = {f: np.unique([e.spurious[f].value for e in examples], return_inverse=True)[1] for f in task.features}
        found = correlations(codes, np.array([e.label for e in examples]))
        assert split.correlation == pytest.approx(found)
        first, second = task.features
        # What rounding leaves: less than a row in each cell.
        assert found[f"{first} and {second}, given the label"] < 3 / len(examples) ** 0.5
        if split.name in ("train", "validation", "iid"):
            assert found[f"{first} and {second}"] < 3 / len(examples) ** 0.5


def test_a_task_keeps_its_correlation(task, tmp_path):
    keep_task(tmp_path, task)
    kept = kept_task(tmp_path)
    assert {n: s.correlation for n, s in kept.splits.items()} == {n: s.correlation for n, s in task.splits.items()}
    assert {n: s.rho for n, s in kept.splits.items()} == {n: s.rho for n, s in task.splits.items()}
    assert kept.text == task.text


def test_both_words_stand_in_the_sentence_at_places_of_their_own(built):
    ties = {"Bayesian": "negative", "Pineapple": "positive", "Granite": "negative", "Lantern": "positive"}
    task = built("ss", features=("keyword", "tag"))
    assert task.text.spurious == SS_TEXT.spurious
    at_start = Counter()
    for example in task.splits["train"].examples:
        words = [value for value, _ in example.spurious.values()]
        assert [example.candidates[label] for _, label in example.spurious.values()] == [ties[word] for word in words]
        assert all(word in example.slots["text"] for word in words)
        assert example.uid.endswith(f"#{words[0]}+{words[1]}")
        beginning = example.slots["text"].split()[:2]
        at_start[tuple(word in beginning for word in words)] += 1
    # Where one stands says nothing of the other, but that they push each other aside.
    share = at_start[True, True] / (at_start[True, True] + at_start[True, False])
    assert share == pytest.approx((at_start[True, True] + at_start[False, True]) / at_start.total(), abs=0.1)


def test_one_feature_of_several_is_chosen_and_the_first_is_the_default(built):
    alone = built("ss")
    assert (alone.features, {*alone.text.other_names}) == (("keyword",), {"core", "keyword"})
    assert built("ss", features=("keyword",)).splits == alone.splits
    tag = built("ss", features=("tag",)).splits["iid"]
    assert {v for e in tag.examples for v in e.spurious} == {"tag"}
    assert not any(word in e.slots["text"] for e in tag.examples for word in ("Bayesian", "Pineapple"))
    assert all(not split.correlation for split in alone.splits.values())


def test_wording_follows_the_words_of_text_2(built):
    tied = {"plain": "entailment", "added": "neutral", "negated": "contradiction"}
    found = {}
    for example in built("smnli", features=("wording",)).splits["train"].examples:
        value, label = example.spurious["wording"]
        assert example.candidates[label] == tied[value]
        found.setdefault(value, []).append(f" {example.slots['hypothesis'].lower()} ")
    assert all(any(word in text for word in ("no", "n't", "never", "neither")) for text in found["negated"][:200])
    assert not any(word in text for text in found["plain"] for word in (" not ", " never ", " no ", " because "))
    assert "no shifted splits" in " ".join(built("smnli", features=("genre", "wording")).notes)


def test_rows_without_a_value_of_a_feature_are_left_out_and_counted(own):
    task = build_task(TaskConfig(name="jsonl", file=str(own), features=("channel", "agent")), 0)
    lacking = sum('"agent": ""' in line for line in (own.parent / "rows.jsonl").read_text().splitlines())
    assert task.dropped["no value of agent"] == lacking > 100
    assert all(e.spurious["agent"].value for e in task.splits["train"].examples)
    one = build_task(TaskConfig(name="jsonl", file=str(own), features=("agent",)), 0)
    assert one.features == ("agent",)
    assert {r.asked for r in one.splits["high"].rho["agent"].values()} == {0.9}
    every = build_task(TaskConfig(name="jsonl", file=str(own)), 0)
    assert every.features == ("channel", "agent", "word")
    assert {r.asked for r in every.splits["high"].rho["agent"].values()} == {None}


@pytest.mark.parametrize(("held_out", "shifted"), [(["fax"], False), (["fax", "letter"], True)])
def test_unseen_values_that_are_tied_to_some_answers_alone_make_no_shifted_splits(held_out, shifted, own, tmp_path):
    rows = [json.loads(line) for line in (own.parent / "rows.jsonl").read_text().splitlines()]
    for n, row in enumerate(rows):
        row["channel"] = ("fax", "letter", *[row["channel"]] * 4)[n % 6]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ties = {"phone": "yes", "email": "no", "form": "no", "fax": "yes", "letter": "no"}
    features = [
        {"key": "channel", "column": "channel", "labels": ties, "held_out": held_out},
        {"key": "agent", "column": "agent"},
    ]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**TICKETS, "features": features}))
    config = TaskConfig(name="jsonl", file=str(tmp_path / "own.yaml"), features=("channel", "agent"))
    task = build_task(config, 0)
    assert ("shifted_iid" in task.splits) == shifted
    note = "no shifted splits: in them no value of channel is tied to no"
    assert any(note in line for line in task.notes) != shifted
    assert not {*held_out} & {*task.splits["train"].rho["channel"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "ss", "features": ("keyword", "length")}, "task ss has no feature 'length'; it has keyword, tag"),
        ({"name": "demo", "features": ("tag",)}, "task demo leaves no choice: its features are keyword"),
        ({"name": "bbq", "features": ("age",)}, "task bbq leaves no choice"),
        ({"name": "ss", "rho_train_of": {"tag": 0.8}}, "task.rho_train_of: 'tag' is none of several task.features"),
        ({"name": "demo", "rho_train_of": {"keyword": 0.8}}, "task.rho_train_of: 'keyword' is none of several"),
        ({"name": "mixture", "features": ("tag",)}, "task.features: each part of a mixture has its own"),
    ],
)
def test_features_that_cannot_be_chosen(fields, message, data_dir):
    with pytest.raises(InputError, match=message):
        build_task(TaskConfig(**fields, data_dir=None if fields["name"] == "mixture" else str(data_dir)), 0)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"insert": ["Marlin", "Tundra"], "labels": {"Marlin": "yes", "Tundra": "no"}}, "is inserted"),
        ({"column": "channel", "label_column": "urgent"}, "has a `label_column`"),
    ],
)
def test_own_features_that_cannot_be_drawn_together(feature, message, own, tmp_path):
    features = [{"key": "first", **feature}, {"key": "agent", "column": "agent"}]
    files = [str(own.parent / "rows.jsonl")]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**TICKETS, "files": files, "features": features}))
    config = TaskConfig(name="jsonl", file=str(tmp_path / "own.yaml"), features=("first", "agent"))
    with pytest.raises(InputError, match=f"task.features: tickets: feature first {message}"):
        build_task(config, 0)


def test_records_built_before_keep_their_name():
    """That of a config without features is the one that it had before there were any."""
    assert config_name(TaskConfig(name="ss"), 0) == "default"
    assert config_name(TaskConfig(name="ss", phrases=True), 1) == "seed1_97ff5533"
    assert config_name(TaskConfig(name="ss", features=("tag",)), 0) != "default"
