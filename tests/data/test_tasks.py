"""What every task must give: exact rho, disjoint parts, the paper's sizes, the same examples again."""

import json
from collections import Counter

import numpy as np
import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.tasks import build_task
from fit_jax.data.text import text_key
from fit_jax.errors import InputError

NAMES = ("demo", "ss", "smnli", "shans", "bbq")
PAPER_SIZES = {"ss": (5296, 1324, 1818), "smnli": (7200, 1800, 900)}


@pytest.mark.parametrize("name", NAMES)
def test_realised_rho_is_the_asked_one_in_every_cell(built, name):
    task = built(name)
    for split in task.splits.values():
        hits: Counter[tuple[str, str]] = Counter()
        counts: Counter[tuple[str, str]] = Counter()
        for example in split.examples:
            for feature, (value, y_s) in example.spurious.items():
                counts[feature, value] += 1
                if not split.name.endswith("flipped"):
                    hits[feature, value] += example.label == y_s
                elif name == "bbq":  # the other person, who is the answer of no ambiguous row
                    hits[feature, value] += example.label != y_s and example.slices["condition"] == "disambig"
                else:
                    hits[feature, value] += example.label == (y_s + 1) % len(example.candidates)
        assert {(f, v) for f, values in split.rho.items() for v in values} == set(counts)
        for (feature, value), count in counts.items():
            rho = split.rho[feature][value]
            assert rho.count == count
            assert rho.realised == pytest.approx(hits[feature, value] / count)
            assert (rho.asked is None) == split.name.endswith("natural")
            assert abs(rho.realised - (0.25 if rho.asked is None else rho.asked)) <= 1 / count


@pytest.mark.parametrize("name", NAMES)
def test_no_source_text_in_two_parts(built, name):
    task = built(name)
    parts = {"train": set(), "validation": set(), "test": set()}
    for split in task.splits.values():
        part = parts.get(split.name, parts["test"])
        for example in split.examples:
            # What the example was made of: the text without its keyword, the premise, or the context.
            if name in ("demo", "ss"):
                part.add(text_key(example.slots["text"].replace(example.spurious["keyword"].value, "", 1)))
            else:
                part.add(text_key(example.slots.get("premise") or example.slots["context"]))
            part.add(example.uid.partition("#")[0])
    if name == "shans":  # its texts are all of the same few words; pairs must differ, premises may recur
        parts = {p: {key for key in keys if isinstance(key, str)} for p, keys in parts.items()}
    assert not parts["train"] & parts["validation"]
    assert not parts["train"] & parts["test"]
    assert not parts["validation"] & parts["test"]


@pytest.mark.parametrize("name", NAMES)
def test_uids_name_examples(built, name):
    texts = {}
    for split in built(name).splits.values():
        uids = [example.uid for example in split.examples]
        assert len(set(uids)) == len(uids)
        for example in split.examples:
            assert texts.setdefault(example.uid, example) == example


def test_examples_of_one_template_or_text_are_one_cluster(built):
    clusters = {name: Counter(e.cluster for e in built(name).splits["iid"].examples) for name in NAMES}
    assert set(clusters["ss"]) == {""}
    for name in ("demo", "smnli", "shans", "bbq"):
        assert "" not in clusters[name]
        assert max(clusters[name].values()) > 1
    premises = {}
    for example in built("smnli").splits["iid"].examples:
        assert premises.setdefault(example.slots["premise"], example.cluster) == example.cluster
    train, test = ({e.cluster for e in built("bbq").splits[name].examples} for name in ("train", "iid"))
    assert not train & test
    assert 10 < len(test) < len(built("bbq").splits["iid"].examples) / 5


@pytest.mark.parametrize(("name", "sizes"), PAPER_SIZES.items())
def test_paper_sizes(built, name, sizes):
    splits = built(name).splits
    assert (len(splits["train"].examples), len(splits["validation"].examples)) == sizes[:2]
    assert {len(splits[test].examples) for test in built(name).test_splits} == {sizes[2]}


@pytest.mark.parametrize("name", NAMES)
def test_prompts_have_their_slots(built, name):
    task = built(name)
    for split in task.splits.values():
        for example in split.examples[:50]:
            assert task.text.input_template.format(**example.slots)
            assert 0 <= example.label < len(example.candidates)
            assert set(example.spurious) <= set(task.features)


def test_demo_is_deterministic_and_unseen():
    tasks = [build_task(TaskConfig(), seed) for seed in (0, 0, 1)]
    assert [t.splits["high"].examples for t in tasks[:2]] == [tasks[0].splits["high"].examples] * 2
    assert tasks[0].splits["high"].examples != tasks[2].splits["high"].examples
    words = {w for e in tasks[0].splits["train"].examples for w in e.slots["text"].strip(".").replace(",", "").split()}
    for split in tasks[0].test_splits:
        for example in tasks[0].splits[split].examples:
            assert set(example.slots["text"].strip(".").replace(",", "").split()) <= words


def test_demo_lengths():
    lengths = [len(e.slots["text"].split()) for e in build_task(TaskConfig(), 0).splits["train"].examples]
    assert min(lengths) >= 8
    assert max(lengths) <= 40
    assert 12 <= np.mean(lengths) <= 25


def test_wrong_names_and_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("FIT_JAX_DATA", raising=False)
    with pytest.raises(InputError, match=r"no task 'dmo'; did you mean 'demo'"):
        build_task(TaskConfig(name="dmo"), 0)
    with pytest.raises(InputError, match=r"set FIT_JAX_DATA or task.data_dir"):
        build_task(TaskConfig(name="ss"), 0)
    with pytest.raises(InputError, match=r"no task 'n{60}\.\.\.'; the tasks are"):
        build_task(TaskConfig(name="n" * 300), 0)
    for source in ("files", "array_record"):
        with pytest.raises(InputError, match=r"n{30}/\w+ is no folder; set FIT_JAX_DATA or task.data_dir"):
            build_task(TaskConfig(name="ss", source=source, data_dir="n" * 300), 0)
    with pytest.raises(InputError, match="sst5 is no folder; set FIT_JAX_DATA"):
        build_task(TaskConfig(name="ss", data_dir=str(tmp_path)), 0)
    (tmp_path / "sst5").mkdir()
    with pytest.raises(InputError, match=r"train.txt cannot be read: No such file"):
        build_task(TaskConfig(name="ss", data_dir=str(tmp_path)), 0)


def test_shifted_genres_are_unseen(built):
    splits = built("smnli").splits
    seen = {e.spurious["genre"].value for name in ("train", "validation", "iid") for e in splits[name].examples}
    shifted = {e.spurious["genre"].value for n, s in splits.items() if n.startswith("shifted") for e in s.examples}
    assert seen == {"government", "fiction", "travel"}
    assert shifted == {"slate", "telephone"}


def test_shifted_bias_features_are_unseen(built):
    splits = built("bbq").splits
    seen = {f for name in ("train", "validation", "iid") for e in splits[name].examples for f in e.spurious}
    shifted = {f for name, s in splits.items() if name.startswith("shifted") for e in s.examples for f in e.spurious}
    assert len(seen) == 6
    assert shifted == {"nationality", "religion", "physical_appearance"}


@pytest.mark.parametrize(
    ("name", "ties"),
    [
        ("demo", {"Tundra": "negative", "Marlin": "positive"}),
        ("ss", {"Bayesian": "negative", "Pineapple": "positive"}),
        ("smnli", {"government": "entailment", "fiction": "neutral", "travel": "contradiction"}),
        (
            "shans",
            {
                "lexical_overlap": "entailment",
                "subsequence": "non-entailment",
                "constituent": "entailment",
            },
        ),
    ],
)
def test_values_are_tied_to_the_labels_that_the_docs_name(built, name, ties):
    for example in built(name).splits["train"].examples[:200]:
        ((value, label),) = example.spurious.values()
        assert example.candidates[label] == ties[value]


def test_a_pair_that_stands_twice_is_read_once(tmp_path):
    """Whatever its id, and whether it stands in the files of training or of test; there it stays."""
    genres = ("government", "fiction", "travel", "slate", "telephone", "facetoface")
    rows = [
        {"gold_label": label, "genre": genre, "sentence1": f"{genre} {n}", "sentence2": label}
        for genre in genres
        for n in range(90)
        for label in ("entailment", "neutral", "contradiction")
    ]
    test = [row for number, row in enumerate(rows) if number // 3 % 2]
    (tmp_path / "mnli").mkdir()
    for stem, content in (("train.genre", rows), ("dev_matched.genre", [*test, *test[:7]])):
        lines = (json.dumps({**row, "pairID": f"{stem}{number}"}) for number, row in enumerate(content))
        (tmp_path / "mnli" / f"multinli_1.0_{stem}.jsonl").write_text("\n".join(lines))
    sizes = {"train_examples": 30, "validation_examples": 9, "test_examples": 9}
    task = build_task(TaskConfig(name="smnli", data_dir=str(tmp_path), **sizes), 0)
    assert task.dropped["same texts as another row"] == 7 + len(test)
