"""Config files and overrides: how they are put together, read, written and refused."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

from fit_jax.config import Config, load_config
from fit_jax.config_files import config_differences, decode_config, dump_config, read_config
from fit_jax.data.own_data import OwnData
from fit_jax.errors import InputError
from fit_jax.experiment.config import parse_experiment

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_dump_reads_back_equal():
    config = load_config(["--focus.weights", "{none: 2}", "--lora.targets=[q_proj]", "--train.patience", "null"])
    assert decode_config(Config, yaml.safe_load(dump_config(config))) == config
    assert config.focus.weights == {"none": 2.0}


def test_later_arguments_win_over_files(tmp_path):
    (tmp_path / "base.yaml").write_text("seed: 1\ntrain: {steps: 7, batch_size: 3}\n")
    (tmp_path / "run.yaml").write_text("base: base.yaml\ntrain: {steps: 8}\n")
    config = load_config(["--config", str(tmp_path / "run.yaml"), "--train.batch_size", "5"])
    assert (config.seed, config.train.steps, config.train.batch_size) == (1, 8, 5)


def test_a_section_may_have_a_base_of_its_own(tmp_path):
    (tmp_path / "base.yaml").write_text("steps: 7\nbatch_size: 3\n")
    (tmp_path / "run.yaml").write_text("train: {base: base.yaml, steps: 8}\n")
    config = load_config(["--config", str(tmp_path / "run.yaml")])
    assert (config.train.steps, config.train.batch_size) == (8, 3)


def test_differences_name_fields_and_values():
    assert config_differences(Config(), load_config(["--train.steps", "5"])) == ["train.steps: 600 -> 5"]


def test_fields_that_may_differ_are_whole_names():
    other = load_config(["--model.attention", "xla", "--model.attention_softcap", "50", "--mesh.fsdp", "2"])
    rows = config_differences(Config(), other, ("model.attention", "mesh"))
    assert rows == ["model.attention_softcap: None -> 50.0"]


def test_a_file_with_an_unknown_field_is_told(tmp_path):
    (tmp_path / "run.yaml").write_text("optimizer: {learning_rat: 1}\n")
    with pytest.raises(
        InputError, match=r"optimizer\.learning_rat: there is no such field; did you mean 'learning_rate'"
    ):
        load_config(["--config", str(tmp_path / "run.yaml")])


def test_a_description_of_data_given_as_a_config_is_told_where_it_belongs(tmp_path):
    """By what every description must have; one such name alone is a field that does not exist."""
    needed = {f.name for f in fields(OwnData) if f.default is MISSING} - {"name"}
    for names in (needed, needed - {"core"}, {*needed, "features", "files", "seed"}):
        (tmp_path / "tickets.yaml").write_text(yaml.safe_dump(dict.fromkeys(names, "x")))
        with pytest.raises(InputError, match=r"one's own data and no config; set task\.name to jsonl") as told:
            load_config(["--train.steps", "3", "--config", str(tmp_path / "tickets.yaml")])
        assert told.value.usage == f"--task.name jsonl --task.file {tmp_path / 'tickets.yaml'}"
        with pytest.raises(InputError, match=r"set run\.task\.name to jsonl and run\.task\.file") as told:
            parse_experiment(["--config", str(tmp_path / "tickets.yaml")])
        assert told.value.usage == f"--run.task.name jsonl --run.task.file {tmp_path / 'tickets.yaml'}"
    (tmp_path / "run.yaml").write_text("input: x\n")
    with pytest.raises(InputError, match="input: there is no such field"):
        load_config(["--config", str(tmp_path / "run.yaml")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  steps: 3\n  steps: 4\n", "'steps' appears twice"),
        ("base: run.yaml\n", "leads back to itself"),
        ("base: 5\n", "base: 5 is no file name"),
        ("train: {base: [x]}\n", r"base: \['x'\] is no file name"),
        ("a: &a {b: *a}\n", "unconstructable recursive"),
        ("&a {b: *a}\n", "unconstructable recursive"),
        ("{" * 600, "nested too deeply"),
        ("seed: 2020-99-99\n", "no YAML .*month must be"),
        ("seed: !!int\n", "no YAML"),
        ("train: 5\n", "train: 5 is no mapping; give it fields: method, steps"),
        ("train:\n", "train: null is no mapping"),
        ("1: 2\n", "1: there is no such field"),
    ],
)
def test_files_that_are_no_config_are_told(text, said, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_config(["--config", str(tmp_path / "run.yaml")])


def test_a_mapping_that_is_a_value_replaces_the_base_whole(tmp_path):
    (tmp_path / "base.yaml").write_text("focus: {weights: {none: 1, focus(core): 2}, branches: 2}\n")
    (tmp_path / "run.yaml").write_text("base: base.yaml\nfocus: {weights: {none: 3}}\n")
    config = load_config(["--config", str(tmp_path / "run.yaml")])
    assert (config.focus.weights, config.focus.branches) == ({"none": 3.0}, 2)


def test_configs_and_fields_are_applied_in_their_order(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 1\ntrain: {steps: 7}\n")
    (tmp_path / "b.yaml").write_text("train: {steps: 8}\n")
    files = ["--config", str(tmp_path / "a.yaml"), f"--config={tmp_path / 'b.yaml'}"]
    assert load_config([*files, "--train.steps=9", "--seed", "2"]).train.steps == 9
    config = load_config(["--train.steps=9", *files])
    assert (config.seed, config.train.steps) == (1, 8)


def test_a_config_of_the_package_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named, by_path = load_config(["--config", "ss_small"]), load_config(["--config", "configs/ss_small.yaml"])
    assert named == by_path == load_config(["--config", str(CONFIGS / "ss_small.yaml")])
    with pytest.raises(InputError, match=r"config demoo .*No such file.*; .*: bbq_small, demo, .*experiments/demo,"):
        load_config(["--config", "demoo"])
    for name in ("demo", "stories_lora"):
        load_config(["--config", name])


def test_a_file_that_a_program_wrote_is_complete(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(Config(seed=5)))
    assert read_config(Config, path, complete=True) == Config(seed=5)
    path.write_text("seed: 5\n")
    with pytest.raises(InputError, match="lacks run_dir, task"):
        read_config(Config, path, complete=True)
    path.write_text("core: the urgency\n")
    with pytest.raises(InputError, match=r"config\.yaml: lacks .*name.*; add what is missing"):
        read_config(OwnData, path)
    path.write_text("features: [{column: colour}]\n")
    with pytest.raises(InputError, match=r"config\.yaml: lacks features\.0\.key; add what is missing"):
        read_config(OwnData, path)
