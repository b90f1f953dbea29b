"""The user's own data: formats, features, ties, multiple choice, malformed rows."""

import json
import tracemalloc

import pytest
import yaml

from fit_jax.config import TaskConfig
from fit_jax.data.own_data import FeatureConfig, OwnData
from fit_jax.data.row_stores import DatasetStore
from fit_jax.data.splits import Rho
from fit_jax.data.tasks import build_task
from fit_jax.data.tasks.jsonl import build_own, raw_table
from fit_jax.errors import InputError
from fit_jax.focus.example import group_of

from ..tickets import TICKETS

BASE = dict(TICKETS)
CHANNEL = {"key": "channel", "name": "the channel", "column": "channel"}


def ticket(n):
    """Urgent every second one; e-mail in three of four urgent ones, and so on."""
    urgent = n % 2
    channel = "email" if (n // 2) % 4 < (3 if urgent else 1) else "phone"
    words = "help at once" if urgent else "whenever you like"
    text = f"Ticket number {n}: {words}" + (", asap" if n % 5 == 0 else "")
    return {
        "id": f"t{n}",
        "text": text,
        "urgent": ("no", "yes")[urgent],
        "channel": channel,
        "plan": ("a", "b")[n % 3 > 0],
    }


def write(folder, rows, **description):
    with (folder / "rows.jsonl").open("w") as file:
        for row in rows:
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**BASE, **description}))
    return str(path)


def build(path, **fields):
    return build_task(TaskConfig(name="jsonl", file=path, **fields), 0)


def test_rows_that_hang_together_are_one_cluster_and_features_have_other_names(tmp_path):
    told = {
        "cluster": "plan",
        "core_other_names": ["what it says"],
        "features": [CHANNEL | {"other_names": ["the way"]}],
    }
    task = build(write(tmp_path, map(ticket, range(400)), uid="id", **told))
    for example in task.splits["train"].examples:
        assert example.cluster == ("a", "b")[int(example.uid.removeprefix("t")) % 3 > 0]
    assert task.text.other_names == {"core": ("what it says",), "channel": ("the way",)}
    for column, told_as in (("plane", "plane"), ("é" * 500, r"é{1,100}\.\.\.")):
        told["cluster"] = column
        with pytest.raises(InputError, match=f"no field '{told_as}', which `cluster` names"):
            build(write(tmp_path, map(ticket, range(400)), **told))


def test_column_feature_with_estimated_ties(tmp_path):
    task = build(write(tmp_path, map(ticket, range(400)), features=[CHANNEL], slices=["plan"], uid="id"))
    assert task.text.spurious == {"channel": "the channel"}
    assert "channel = email: tied to yes (estimated; rho in the data 0.75)" in task.notes
    high = task.splits["high"].examples
    assert {e.spurious["channel"] for e in high} == {("email", 1), ("phone", 0)}
    for value, rho in task.splits["high"].rho["channel"].items():
        here = [e for e in high if e.spurious["channel"].value == value]
        assert abs(sum(e.label == e.spurious["channel"].label for e in here) / len(here) - 0.9) <= 1 / rho.count
    parts = [{e.uid for e in task.splits[name].examples} for name in ("train", "validation", "iid")]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert {e.slices["plan"] for e in high} == {"a", "b"}
    assert high[3] == high[1:9][2] == list(high)[3]


def test_estimated_ties_are_to_the_answer_that_a_value_is_over_represented_with(tmp_path):
    """Most e-mails are calm, as most tickets are; of the urgent ones more come by e-mail."""
    rows = []
    for n in range(400):
        urgent, turn = n % 4 == 0, n // 4
        channel = "email" if (turn % 4 if urgent else turn % 2) else "phone"
        rows.append({"text": f"Ticket {n}", "urgent": ("no", "yes")[urgent], "channel": channel})
    task = raw_table(TaskConfig(name="jsonl", file=write(tmp_path, rows, features=[CHANNEL]))).task
    assert {e.spurious["channel"] for e in task.splits["train"].examples} == {("email", 1), ("phone", 0)}
    assert "channel = email: tied to yes (estimated; rho in the data 0.33)" in task.notes


def test_a_slice_must_be_in_every_row(tmp_path):
    rows = [ticket(n) for n in range(100)]
    del rows[5]["plan"]
    with pytest.raises(InputError, match=r"rows\.jsonl:6: no field 'plan', which `slices` names"):
        build(write(tmp_path, rows, features=[CHANNEL], slices=["plan"]))


def test_every_format_gives_the_same_examples(tmp_path):
    import csv

    import pyarrow
    import pyarrow.parquet

    rows = [ticket(n) for n in range(300)]
    rows[7]["text"] = 'a "quoted", two-line\ntext'
    with (tmp_path / "rows.csv").open("w", newline="") as comma, (tmp_path / "rows.tsv").open("w", newline="") as tab:
        for writer in (csv.DictWriter(comma, rows[0]), csv.DictWriter(tab, rows[0], delimiter="\t")):
            writer.writeheader()
            writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    built = []
    for suffix in ("jsonl", "csv", "tsv", "parquet"):
        path = write(tmp_path, rows, features=[CHANNEL], uid="id", files=[f"rows.{suffix}"])
        built.append({name: list(split.examples) for name, split in build(path).splits.items()})
    assert built[0] == built[1] == built[2] == built[3]
    own = OwnData(**{**BASE, "candidates": ("no", "yes"), "features": (FeatureConfig(**CHANNEL),), "uid": "id"})
    import datasets

    task = build_own(own, DatasetStore(datasets.Dataset.from_list(rows), "rows"), None, tmp_path, TaskConfig(), 0)
    assert {name: list(split.examples) for name, split in task.splits.items()} == built[0]


def test_rows_as_they_came(tmp_path):
    inserted = {"key": "code", "insert": ["Lynx", "Otter"], "labels": {"Lynx": "no", "Otter": "yes"}}
    path = write(tmp_path, map(ticket, range(200)), features=[inserted, CHANNEL])
    task = raw_table(TaskConfig(name="jsonl", file=path)).task
    assert list(task.splits) == ["train"]
    assert [e.slots["text"] for e in task.splits["train"].examples] == [ticket(n)["text"] for n in range(200)]
    assert task.splits["train"].rho == {"channel": dict.fromkeys(("phone", "email"), Rho(None, 0.75, 100))}
    config = TaskConfig(name="jsonl", file=write(tmp_path, map(ticket, range(20)), features=[inserted]))
    task = raw_table(config).task
    assert [e.spurious for e in task.splits["train"].examples] == [{}] * 20


def test_keyword_function_and_inserted_features(tmp_path):
    (tmp_path / "features.py").write_text("def length(row):\n    return 'long' if len(row['text']) > 32 else None\n")
    features = [
        {"key": "code", "insert": ["Lynx", "Otter"], "labels": {"Lynx": "no", "Otter": "yes"}},
        {"key": "hurry", "keywords": ["ASAP", "now"], "labels": {"ASAP": "yes"}},
        {"key": "length", "function": "features.py:length", "labels": {"long": "no"}},
    ]
    task = build(write(tmp_path, map(ticket, range(400)), features=features))
    for example in task.splits["low"].examples:
        assert example.spurious["code"].value in example.slots["text"]
        assert ("hurry" in example.spurious) == ("asap" in example.slots["text"])
        assert example.spurious.get("length", ("long", 0)) == ("long", 0)
    rho = task.splits["low"].rho
    assert rho["code"]["Lynx"].asked == pytest.approx(0.1)
    assert rho["hurry"]["ASAP"].asked is None
    hurried = [e for e in task.splits["low"].examples if "hurry" in e.spurious]
    assert rho["hurry"]["ASAP"].realised == pytest.approx(sum(e.label for e in hurried) / len(hurried))


def test_multiple_choice_with_answers_of_each_row(tmp_path):
    rows = []
    for n in range(300):
        names = [f"name{n}", f"other{n}", "unknown"]
        answer = (n // 3) % 3
        rows.append({"text": f"Who came in case {n}?", "choices": names, "urgent": answer, "hint": n % 3, "group": "g"})
    features = [{"key": "group", "column": "group", "label_column": "hint"}]
    path = write(tmp_path, rows, features=features, candidates=[], candidates_column="choices")
    task = build(path)
    assert len({e.candidates for e in task.splits["train"].examples}) == len(task.splits["train"].examples)
    for name, ask in (("iid", 1 / 3), ("high", 0.9), ("low", 0.1)):
        examples = task.splits[name].examples
        assert {group_of(e) for e in examples} == {(("g", "y = y_s"),), (("g", "y != y_s"),)}
        agree = sum(e.label == e.spurious["group"].label for e in examples)
        assert abs(agree / len(examples) - ask) <= 1 / len(examples)


def test_held_out_values_and_test_files(tmp_path):
    rows = [{**ticket(n), "channel": "fax" if n % 10 < 2 else ticket(n)["channel"]} for n in range(400)]
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({**row, "text": row["text"] + " again"}) for row in rows))
    features = [{**CHANNEL, "held_out": ["fax"]}]
    task = build(write(tmp_path, rows, features=features, test_files=["test.jsonl"]))
    for name, split in task.splits.items():
        assert all((e.spurious["channel"].value == "fax") == name.startswith("shifted") for e in split.examples)
        assert all(e.slots["text"].endswith("again") == (name in task.test_splits) for e in split.examples)


def test_malformed_rows_are_counted_and_shown(tmp_path):
    rows = [ticket(n) for n in range(400)]
    wrong = [
        "{bad json",
        "[]",
        {**rows[0]},
        {**rows[1], "id": "x1", "urgent": "maybe"},
        {**rows[1], "id": "x2", "text": ""},
    ]
    wrong += [{**rows[1], "id": "x3", "text": "x" * 1_000_000}, {"id": "x4", "urgent": "no"}, {**rows[2], "id": ""}]
    path = write(tmp_path, [*rows, *wrong], features=[CHANNEL], uid="id")
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(b'{"id": "latin", "text": "caf\xe9", "urgent": "no", "channel": "email"}\n')
    with pytest.raises(InputError, match=r"9 malformed rows: .*rows.jsonl:401: bad JSON.*; \.\.\.; fix them"):
        build(path)
    task = build(path, malformed="skip")
    assert task.notes[0].startswith("9 malformed rows skipped")
    assert len({e.uid for s in task.splits.values() for e in s.examples}) <= 400


def test_rows_without_the_feature_are_counted(tmp_path):
    rows = [{**ticket(n), "channel": None if n % 10 < 2 else ticket(n)["channel"]} for n in range(400)]
    assert build(write(tmp_path, rows, features=[CHANNEL])).dropped == {"no value of channel": 80}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": "no column"}, "uses no column"),
        ({"input": "Text: {text"}, "is no template"),
        ({"input": "Text: {text:d}"}, "takes no format"),
        ({"input": "Text 1: {}, {text}"}, "names no column"),
        ({"candidates": ["", "b"]}, "an empty answer"),
        ({"features": [{"key": "a & b", "column": "c"}]}, "names without"),
        ({"candidates": ["a"]}, "two different answers"),
        ({"candidates_column": "x"}, "give either"),
        ({"features": []}, "`features` is empty"),
        ({"features": [{"key": "core", "column": "c"}]}, "differ from each other and from core"),
        ({"features": [{"key": "a"}]}, "exactly one of"),
        (
            {"features": [{"key": "a", "column": "channel", "labels": {"email": "urgent"}}]},
            "'urgent' is none of no, yes",
        ),
        (
            {"features": [{"key": "a", "insert": ["x", "y"], "labels": {"x": "no"}}]},
            "ties no label to the inserted word",
        ),
        ({"features": [{"key": "a", "function": "nowhere:f"}]}, "cannot be loaded"),
        ({"features": [{"key": "a", "function": ":f"}]}, "cannot be loaded"),
        ({"features": [CHANNEL, {"key": "plan", "column": "paln"}]}, r"no row .*'paln'; columns are channel, id, plan"),
        ({"features": [5]}, r"features\.0: 5 is no mapping; give it fields: key, name"),
        ({"features": [{**CHANNEL, "held_out": 3}]}, r"features\.0\.held_out: 3 is not a list of values"),
        ({"features": [{"key": "a", "column": "channel", "colour": 1}]}, "colour"),
        ({"files": ["rows.txt"]}, "one format"),
        ({"files": ["none.jsonl"]}, "No such file"),
        ({"labels": "urgent"}, "did you mean 'label'"),
    ],
)
def test_wrong_descriptions(tmp_path, change, message):
    path = write(tmp_path, map(ticket, range(20)), **{"features": [CHANNEL], **change})
    with pytest.raises(InputError, match=message):
        build(path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", r"cannot be loaded \(ZeroDivisionError: division by zero\)"),
        ("import sys; sys.exit(3)", r"cannot be loaded \(SystemExit: 3\)"),
        ("def f(row): raise SystemExit(3)", r"failed \(SystemExit: 3\) on the row"),
    ],
)
def test_a_function_that_fails_or_exits(tmp_path, code, message):
    (tmp_path / "bad.py").write_text(code + "\n")
    path = write(tmp_path, map(ticket, range(20)), features=[{"key": "a", "function": "bad.py:f"}])
    with pytest.raises(InputError, match=message):
        build(path)


def test_lines_about_functions_are_short(tmp_path):
    name, error = "f" * 200, "e" * 200
    (tmp_path / "bad.py").write_text(f"def {name}(row): raise ValueError('{error}')\n")
    path = write(tmp_path, map(ticket, range(20)), features=[{"key": "k" * 20, "function": f"bad.py:{name}"}])
    with pytest.raises(InputError, match="; fix the function") as told:
        build(path)
    assert len(str(told.value).partition("; ")[0]) <= 200


def test_a_truth_value_is_no_label(tmp_path):
    rows = [{**ticket(n), "urgent": n % 2 > 0} for n in range(100)]
    with pytest.raises(InputError, match="urgent True is none of no, yes"):
        build(write(tmp_path, rows, features=[CHANNEL]))


def test_no_description():
    with pytest.raises(InputError, match=r"set task.file"):
        build(None)


def test_texts_of_json_lines_stay_on_the_disk(tmp_path):
    filler = "word " * 200
    path = write(tmp_path, ({**ticket(n), "filler": filler} for n in range(4_000)), features=[CHANNEL])
    tracemalloc.start()
    task = build(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "rows.jsonl").stat().st_size > 4_000_000
    assert kept < 1_000_000
    assert len(task.splits["train"].examples) > 1000
