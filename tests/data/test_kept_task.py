"""A task kept in a folder is the same when it is read back, except for its training examples."""

import json

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.kept_task import TASK_FILE, has_task, keep_task, kept_task
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

SMALL = {"train_examples": 60, "validation_examples": 20, "test_examples": 20}


@pytest.mark.parametrize("name", ["demo", "ss", "bbq", "bbq_nlg"])
def test_a_task_comes_back_as_it_was(name, tmp_path, request):
    data = None if name == "demo" else str(request.getfixturevalue("data_dir"))
    task = build_task(TaskConfig(name=name, data_dir=data, **SMALL), 0)
    assert not has_task(tmp_path)
    keep_task(tmp_path, task)
    kept = kept_task(tmp_path)
    assert (kept.text, kept.notes, kept.dropped) == (task.text, task.notes, task.dropped)
    assert list(kept.splits) == list(task.splits)
    for split, whole in task.splits.items():
        assert kept.splits[split].rho == whole.rho
        assert len(kept.splits[split].examples) == len(whole.examples)
        if split != "train":
            assert list(kept.splits[split].examples) == list(whole.examples)


def test_a_folder_in_the_place_of_its_file_is_told(tmp_path):
    (tmp_path / TASK_FILE).mkdir()
    with pytest.raises(InputError, match=r"/task\.json: is no file; move it away$"):
        keep_task(tmp_path, build_task(TaskConfig(**SMALL), 0))


def test_a_damaged_copy_is_one_line(tmp_path):
    keep_task(tmp_path, build_task(TaskConfig(**SMALL), 0))
    rows, words = tmp_path / "examples_low.jsonl", tmp_path / TASK_FILE
    whole, told = rows.read_text(), json.loads(words.read_text())
    first, *rest = whole.splitlines(keepends=True)
    for content in (first, "".join(rest), whole.replace("label", "lable"), "[]\n", whole.replace('["', '{"')):
        rows.write_text(content)
        with pytest.raises(InputError, match=r"^[^\n]*examples_low.jsonl[^\n]*put it back from a copy[^\n]*$"):
            kept_task(tmp_path)
    rows.write_text(whole.replace('"label": 1', '"label": 2'))
    with pytest.raises(InputError, match="another kind of value"):
        kept_task(tmp_path)
    rows.write_text(whole)
    odd = (
        {"name": ["demo"]},
        {"core": 1},
        {"spurious": {"keyword": None}},
        {"other_names": {"core": "x"}},
        {"biased": [1]},
    )
    texts = [{"text": {**told["text"], **change}} for change in (*odd, {"parts": {"a": 1}})]
    iid = {**told["splits"]["iid"], "correlation": {"a and b": "much"}}
    odd_correlation = {"splits": {**told["splits"], "iid": iid}}
    for change in (*texts, {"splits": 1}, {"text": {}}, {"splits": {"iid": {}}}, {"notes": 3}, odd_correlation):
        words.write_text(json.dumps({**told, **change}))
        with pytest.raises(InputError, match="put it back from a copy"):
            kept_task(tmp_path)


def test_examples_over_the_bound_are_not_kept(tmp_path):
    task = build_task(TaskConfig(**SMALL), 0)
    assert keep_task(tmp_path / "first", task)
    size = sum(file.stat().st_size for file in (tmp_path / "first").glob("examples_*.jsonl"))
    assert keep_task(tmp_path / "same", task, most=size)
    assert not keep_task(tmp_path / "less", task, most=size - 1)
    assert not (tmp_path / "less").exists()


def test_a_copy_that_was_cut_off_is_none(tmp_path):
    (tmp_path / "examples_flipped.jsonl").mkdir()  # cannot be written, as on a full disk
    with pytest.raises(InputError, match="cannot write"):
        keep_task(tmp_path, build_task(TaskConfig(**SMALL), 0))
    assert not has_task(tmp_path)


def test_while_another_task_is_written_none_is_kept(tmp_path, task):
    """Rows of the new one beside the words of the one before would be a task that never was."""
    keep_task(tmp_path, task)
    rows = tmp_path / "examples_iid.jsonl"
    rows.unlink()
    rows.mkdir()  # where the writing ends
    with pytest.raises(InputError, match=r"cannot write .*examples_iid\.jsonl"):
        keep_task(tmp_path, task)
    assert not has_task(tmp_path)
