"""Configs: the YAML files that come with the project, and what is refused by its field."""

from pathlib import Path

import pytest

from fit_jax.config import Config, load_config
from fit_jax.config_files import config_differences
from fit_jax.errors import InputError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_demo_config_states_the_defaults_except_for_weight_decay():
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
        (["--task.seed", "-1"], "task.seed: -1 is not from 0"),
        (["--task.name", "mixture", "--task.parts", "[{seed: -1}]"], r"task.parts.0.seed: -1 is not from 0"),
        (["--evaluation.seed", "-2"], "evaluation.seed: -2 is not from 0"),
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
        (["--evaluation.batch_size", "10000000"], "evaluation.batch_size: 10000000 is more than 1048576"),
        (["--tokenizer.vocab_size", "2000000000"], "tokenizer.vocab_size: 2000000000 is more than 16777216"),
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rehearsal.rows", "0"], "rehearsal.rows: 0 is less than 1"),
        (["--rehearsal.weight", "-1"], "rehearsal.weight: -1.0 is not a number from 0 up"),
        (["--rehearsal.kl", "inf"], "rehearsal.kl: inf is"),
        (["--rehearsal.files", "[a.txt]", "--rehearsal.weight", "0"], "both 0"),
        (["--rehearsal.files", "[a.txt]", "--rehearsal.kl", "1"], "rehearsal.kl: 1.0, but without an adapter"),
    ],
)
def test_rehearsal_that_teaches_nothing_or_has_no_base_is_told(options, said):
    with pytest.raises(InputError, match=said):
        load_config(options)


def test_a_divergence_needs_an_adapter_alone():
    assert load_config(["--rehearsal.files", "[a.txt]", "--rehearsal.kl", "1", "--lora.rank", "2"]).rehearsal.kl == 1
