"""The task `mixture` from its config: tasks with settings of their own, by names of their own."""

from collections import Counter
from dataclasses import replace

import pytest

from fit_jax.config import PartConfig, TaskConfig
from fit_jax.config_files import config_differences, decode_config
from fit_jax.data.__main__ import main
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError

SMALL = {"train_examples": 40, "validation_examples": 6, "test_examples": 10}


def test_own_data_and_a_demo_are_mixed_from_a_config(own):
    parts = [{**SMALL, "weight": 2}, {"name": "jsonl", "file": str(own), "rho_high": 0.8, "train_examples": 50}]
    config = decode_config(TaskConfig, {"name": "mixture", "parts": parts})
    task = build_task(config, 0)
    assert list(task.parts) == ["demo", "tickets"]
    assert Counter(e.part for e in task.splits["train"].examples) == {"demo": 100, "tickets": 50}
    assert task.notes[0] == "an epoch trains on demo 100 of 40, tickets 50 of 50 examples"
    plain = build_task(config.each[1], 0)
    assert [replace(e, part="") for e in task.parts["tickets"].splits["high"].examples] == list(
        plain.splits["high"].examples
    )


def test_tasks_need_names_of_their_own(own):
    twice = TaskConfig(name="mixture", parts=(PartConfig(**SMALL), PartConfig(**SMALL, weight=2)))
    with pytest.raises(InputError, match=r"two are called 'demo'; join them, or give own data another name"):
        build_task(twice, 0)
    own.write_text(own.read_text().replace("name: tickets", "name: my tickets"))
    spaced = TaskConfig(name="mixture", parts=(PartConfig(name="jsonl", file=str(own)),))
    with pytest.raises(InputError, match="my tickets: names a folder of the report; in the description's `name` write"):
        build_task(spaced, 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rho_train": 7.0}, r"task\.parts\.1: task\.rho_train: 7\.0 is no"),
        ({"name": "nope"}, r"task\.parts\.1: .*'nope'"),
    ],
)
def test_an_error_of_a_part_says_of_which(wrong, said):
    parts = (PartConfig(**SMALL), PartConfig(**wrong))
    with pytest.raises(InputError, match=said):
        build_task(TaskConfig(name="mixture", parts=parts), 0)


@pytest.mark.parametrize("action", ["inspect", "audit", "build"])
def test_a_mixture_is_looked_at_part_by_part(action, tmp_path):
    (tmp_path / "mix.yaml").write_text("task: {name: mixture, parts: [{name: demo}]}")
    with pytest.raises(InputError, match=r"a mixture is no data set; name one of its tasks with --task"):
        main([action, "--config", str(tmp_path / "mix.yaml")])


def test_configs_of_two_mixtures_differ_by_the_fields_of_their_parts():
    first = TaskConfig(name="mixture", parts=(PartConfig(), PartConfig(name="ss", weight=2)))
    other = replace(first, parts=(PartConfig(), PartConfig(name="ss", weight=3)))
    assert config_differences(first, other) == ["parts.1.weight: 2 -> 3"]
    (row,) = config_differences(first, replace(first, parts=first.parts[:1]))
    assert row.startswith("parts: (PartConfig(")
