"""Built records: the same examples as the files, read without TensorFlow, with a card."""

import sys
from dataclasses import replace

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.builders import build_records
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

SMALL = {"train_examples": 60, "validation_examples": 20, "test_examples": 40}


@pytest.mark.parametrize(
    ("name", "fields"), [("demo", {}), ("bbq", {"categories": ("Sexual_orientation", "Religion")})]
)
def test_records_give_the_same_task(tmp_path, data_dir, name, fields):
    config = TaskConfig(name=name, data_dir=str(data_dir), **SMALL, **fields)
    folder = build_records(config, 3, tmp_path)
    direct = build_task(config, 3)
    recorded = build_task(replace(config, source="array_record", data_dir=str(tmp_path)), 3)
    assert (recorded.text, recorded.notes, recorded.dropped) == (direct.text, direct.notes, direct.dropped)
    assert list(recorded.splits) == list(direct.splits)
    for split, examples in ((split, direct.splits[split].examples) for split in direct.splits):
        assert list(recorded.splits[split].examples) == list(examples)
        assert recorded.splits[split].examples[2:5] == list(examples[2:5])
        assert recorded.splits[split].examples[-1] == examples[-1]
        assert recorded.splits[split].rho == direct.splits[split].rho
    assert "| high |" in (folder / "README.md").read_text()
    assert "tensorflow" not in sys.modules


def test_data_source_of_the_default_config(tmp_path):
    import tensorflow_datasets as tfds

    build_records(TaskConfig(), 0, tmp_path)
    source = tfds.data_source("fit_demo", split="high", data_dir=str(tmp_path))
    assert len(source) == 500
    assert source[0]["uid"].decode() == build_task(TaskConfig(), 0).splits["high"].examples[0].uid


def test_building_again_changes_nothing(tmp_path):
    config = TaskConfig(**SMALL)
    folder = build_records(config, 0, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert build_records(config, 0, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_records_of_another_config_are_not_taken(tmp_path):
    build_records(TaskConfig(**SMALL), 0, tmp_path)
    wanted = TaskConfig(**SMALL, rho_high=0.8, source="array_record", data_dir=str(tmp_path))
    with pytest.raises(InputError, match=r"have not been built; run python -m fit_jax.data build"):
        build_task(wanted, 0)
    with pytest.raises(InputError, match=r"built from `files`"):
        build_records(wanted, 0, tmp_path)
