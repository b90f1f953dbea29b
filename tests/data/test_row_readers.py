"""The hub's copies give the same examples as the official files; local folders stand in for them."""

import csv
import json

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.row_readers import hub_rows
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

SMALL = {"train_examples": 60, "validation_examples": 20, "test_examples": 40}


def write_split(folder, split, rows):
    """One split in the layout that `datasets` takes for a data set."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


def write_card(folder, configs):
    """The card that names the configs and their files."""
    lines = ["---", "configs:"]
    for name, files in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [f"  - split: {split}\n    path: {path}" for split, path in files.items()]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


@pytest.fixture
def same(tmp_path):
    """Asserts that a task reads the same from files in tmp_path/files as from tmp_path/hub."""

    def check(name, **fields):
        sources = {"files": tmp_path / "files", "hub": tmp_path / "hub"}
        tasks = [
            build_task(TaskConfig(name=name, source=source, data_dir=str(folder), **SMALL, **fields), 0)
            for source, folder in sources.items()
        ]
        for split in tasks[0].splits:
            assert list(tasks[0].splits[split].examples) == list(tasks[1].splits[split].examples)
        assert tasks[0].dropped == tasks[1].dropped

    return check


def test_ss(tmp_path, data_dir, same):
    (tmp_path / "files" / "sst5").mkdir(parents=True)
    names = {"train": "train", "dev": "validation", "test": "test"}
    for part, split in names.items():
        lines = (data_dir / "sst5" / f"{part}.txt").read_text().splitlines()[:300]
        (tmp_path / "files" / "sst5" / f"{part}.txt").write_text("\n".join(lines))
        write_split(tmp_path / "hub" / "ptb", split, [{"ptb_tree": line} for line in lines])
    write_card(tmp_path / "hub", {"ptb": {split: f"ptb/{split}-*.parquet" for split in names.values()}})
    same("ss")


def test_shans(tmp_path, data_dir, same):
    (tmp_path / "files" / "hans").mkdir(parents=True)
    for stem, split in (("train", "train"), ("evaluation", "validation")):
        name = f"heuristics_{stem}_set.txt"
        header, *lines = (data_dir / "hans" / name).read_text().splitlines()
        lines = lines[::50]
        (tmp_path / "files" / "hans" / name).write_text("\n".join([header, *lines]) + "\n")
        rows = list(csv.DictReader([header, *lines], delimiter="\t", quoting=csv.QUOTE_NONE))
        hub = [
            {
                "premise": row["sentence1"],
                "hypothesis": row["sentence2"],
                "label": ["entailment", "non-entailment"].index(row["gold_label"]),
                "heuristic": row["heuristic"],
                "subcase": row["subcase"],
                "template": row["template"],
            }
            for row in rows
        ]
        write_split(tmp_path / "hub", split, hub)
    same("shans")


def test_smnli(tmp_path, data_dir, same):
    (tmp_path / "files" / "mnli").mkdir(parents=True)
    lines = (data_dir / "mnli" / "multinli_1.0_dev_matched.genre.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows[0]["gold_label"] = "-"
    files = {"train": ("train", rows[:3000]), "validation_matched": ("dev_matched", rows[3000:6000])}
    files["validation_mismatched"] = ("dev_mismatched", rows[6000:6500])
    labels = ["entailment", "neutral", "contradiction"]
    for split, (stem, part) in files.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / "files" / "mnli" / f"multinli_1.0_{stem}.jsonl").write_text(text)
        hub = [
            {
                "premise": row["sentence1"],
                "hypothesis": row["sentence2"],
                "label": labels.index(row["gold_label"]) if row["gold_label"] in labels else -1,
                "genre": row["genre"],
                "pairID": row["pairID"],
                "promptID": int(row["promptID"]),
            }
            for row in part
        ]
        write_split(tmp_path / "hub", split, hub)
    write_card(tmp_path / "hub", {"default": {split: f"{split}-*.parquet" for split in files}})
    same("smnli")


def test_bbq(tmp_path, data_dir, same):
    for folder in ("files/bbq", "hub/data"):
        (tmp_path / folder).mkdir(parents=True)
        for category in ("Age", "Religion"):
            text = "\n".join((data_dir / "bbq" / f"{category}.jsonl").read_text().splitlines()[:600])
            (tmp_path / folder / f"{category}.jsonl").write_text(text)
    metadata = (data_dir / "bbq" / "additional_metadata.csv").read_text()
    (tmp_path / "files" / "bbq" / "additional_metadata.csv").write_text(metadata)
    write_card(tmp_path / "hub", {name: {"test": f"data/{name}.jsonl"} for name in ("Age", "Religion")})
    same("bbq", categories=("Age", "Religion"))


def test_a_local_copy_that_has_changed_is_read_again(tmp_path):
    config = TaskConfig(name="any", data_dir=str(tmp_path / "hub"))
    for text in ("first", "other"):
        write_split(tmp_path / "hub", "test", [{"text": text}])
        write_card(tmp_path / "hub", {"default": {"test": "test-*.parquet"}})
        assert [row["text"] for _, row in hub_rows(config, "unused", None, "test")] == [text]


def test_a_hub_that_cannot_be_reached(tmp_path):
    config = TaskConfig(name="smnli", source="hub", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere.*cannot be loaded.*task.data_dir"):
        build_task(config, 0)
