"""Configs: files, overrides, errors, help, and the YAML files that come with the project."""

from pathlib import Path

import pytest
import yaml

from fit_jax.config import Config, load_config
from fit_jax.config_files import config_differences, decode_config, dump_config, read_config
from fit_jax.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_demo_config_states_the_defaults_but_for_weight_decay():
    demo = load_config(["--config", str(CONFIGS / "demo.yaml")])
    assert config_differences(Config(), demo) == ["optimizer.weight_decay: 0.01 -> 1.5"]


@pytest.mark.parametrize(
    "path", sorted(p for p in CONFIGS.rglob("*.yaml") if not {"experiments", "models"} & set(p.parts)), ids=str
)
def test_configs_parse_and_begin_with_their_command(path):
    load_config(["--config", str(path)])
    if not path.stem.startswith("base"):
        lines = [line for line in path.read_text().splitlines()[:3] if "python -m fit_jax.train --config " in line]
        assert any(f"--config {path.relative_to(CONFIGS.parent)}" in line for line in lines)


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train.stepz", "5"], "did you mean '--train.steps'?"),
        (["--train.steps", "many"], "train.steps"),
        (["--train", "5"], "--train: there is no such option"),
        (["--train.method", "magic"], "fit, sft_y, sft_y_focus"),
        (["--evaluation.paraphrases", "[foo]"], "evaluation.paraphrases"),
        (["--seed"], "--seed: expected one argument"),
        (["seed", "3"], "unexpected argument 'seed'"),
        (["--seed", "[1"], "no YAML value"),
        (["--seed", "2020-99-99"], "no YAML value"),
        (["--run_dir", "2020-99-99"], "no YAML value"),
        (["--focus.weights", "&a {b: *a}"], "no YAML value"),
        (["--focus.weights", "{" * 600], "nested too deeply"),
        (["--focus.weights", "{none: 1, none: 2}"], "'none' appears twice"),
        (["--config", "absent.yaml"], "No such file"),
        (["--seed", "-1"], "seed"),
        (["--seed", "5000000000"], "seed"),
        (["--seed", "null"], "null is not an integer; leave the field out"),
        (["--run_dir", "' '"], "run_dir"),
        (["--run_dir", "runs\\..\\x"], "a backslash"),
        (["--run_dir", '"runs/\\0"'], "a NUL"),
        (["--task.name", "null"], "null is not a text"),
        (["--train.steps", "true"], "True is not an integer or null"),
        (["--train.steps", "1000000000000000000000"], "too large"),
        (["--optimizer.learning_rate", ".nan"], "optimizer.learning_rate: nan is not a number"),
        (["--optimizer.learning_rate", "nan"], "optimizer.learning_rate: 'nan' is not a number"),
        (["--seed", "9" * 5000], "no YAML value"),
        (["--evaluation.splits", "iid"], "write [iid]"),
        (["--focus.weights", "3"], "3 is not a mapping to values, each a number"),
        (["--model.head_dim", "0"], "model.head_dim"),
        (["--model.window", "-1"], "model.window"),
        (["--model.rope.theta", "-5"], "model.rope.theta"),
        (["--model.norm_epsilon", ".inf"], "model.norm_epsilon"),
        (["--model.sliding_layers", "[99]"], "no layer 99"),
        (["--model.sliding_layers", "[a]"], "['a'] is not a list of values, each an integer or null"),
        (["--evaluation.beams", "1.5"], "evaluation.beams: 1.5 is not an integer or null"),
        (["--model.tied", "3"], "model.tied: 3 is not true or false"),
        (["--focus.weights", "{none: x}"], "is not a mapping to values, each a number"),
        (["--task.name", "[demo]"], "task.name: ['demo'] is not a text"),
        (["--train.batch_size", "0"], "train.batch_size: 0 is less than 1"),
        (["--train.steps", "0"], "train.steps: 0 is less than 1; null stands for none"),
        (["--evaluation.paraphrases", "[]"], "names no paraphrase set"),
        (["--evaluation.batch_size", "0"], "evaluation.batch_size: 0 is less than 1"),
        (["--evaluation.examples", "-5"], "evaluation.examples"),
        (["--evaluation.validation_examples", "0"], "evaluation.validation_examples"),
        (["--evaluation.beams", "0"], "evaluation.beams: 0 is less than 1"),
        (["--evaluation.written_tokens", "2000000"], "is more than 1048576, the most"),
        (["--model.layers", "5000"], "model.layers: 5000 is more than 4096"),
        (["--model.feed_forward", "9000000"], "model.feed_forward: 9000000 is more than 8388608"),
        (["--model.heads", "70000"], "model.heads: 70000 is more than 65536"),
        (["--model.head_dim", "70000"], "model.head_dim: 70000 is more than 65536"),
        (["--lora.rank", "70000"], "lora.rank: 70000 is more than 65536"),
    ],
)
def test_wrong_input_is_told_in_one_line(arguments, said):
    with pytest.raises(InputError) as error:
        load_config(arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_with_an_unknown_field_is_told(tmp_path):
    (tmp_path / "run.yaml").write_text("optimizer: {learning_rat: 1}\n")
    with pytest.raises(
        InputError, match=r"optimizer\.learning_rat: there is no such field; did you mean 'learning_rate'"
    ):
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


def test_a_file_that_a_program_wrote_is_complete(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(Config(seed=5)))
    assert read_config(Config, path, complete=True) == Config(seed=5)
    path.write_text("seed: 5\n")
    with pytest.raises(InputError, match="lacks run_dir, task"):
        read_config(Config, path, complete=True)
