"""A task, a method and a model family from a package outside the checkout, as docs/plugins.md shows them."""

import re
import tomllib
from pathlib import Path

import pytest

from fit_jax import train
from fit_jax.config import TaskConfig, load_config
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.experiment.config import ExperimentConfig, check_experiment
from fit_jax.methods import known_methods, trains
from fit_jax.models.config import ModelConfig
from fit_jax.models.families import config_from_hf, config_to_hf, position_limit
from fit_jax.runs.run import open_run

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "plugins.md").read_text()
MODULES = ("weather", "gentle", "our_model")
SMALL = [
    *("--tokenizer.vocab_size", "300", "--model.layers", "1", "--model.width", "16", "--model.feed_forward", "24"),
    *("--model.heads", "2", "--model.kv_heads", "1", "--model.qk_norm", "true", "--train.steps", "2"),
    *("--train.batch_size", "8", "--train.sequence_length", "288", "--evaluation.examples", "2"),
    *("--evaluation.splits", "[iid]", "--evaluation.paraphrases", "[heldout]", "--evaluation.paraphrases_each", "1"),
]


def install(site: Path, name: str, files: dict[str, str], entries: dict[str, dict[str, str]]) -> None:
    """Leaves in a folder what an installer would."""
    package = site / name.replace("-", "_")
    info = site / f"{package.name}-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    for file, text in files.items():
        (package / file).write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in names.items()) for group, names in entries.items())
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    project = tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0])["project"]
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    files = {"__init__.py": "", **{f"{module}.py": text for module, text in zip(MODULES, blocks, strict=True)}}
    install(tmp_path / "site", project["name"], files, project["entry-points"])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_all_three_train_from_the_command_line(installed, tmp_path):
    given = ["--task.name", "weather", "--train.method", "gentle", "--model.family", "our_model"]
    assert not train.main([*SMALL, *given, "--run_dir", str(tmp_path / "run")])
    run = open_run(tmp_path / "run")
    assert run.task.text.core == "the weather"
    assert run.model.family == "our_model"
    assert "gentle on weather" in (tmp_path / "run" / "report" / "summary.md").read_text()


def test_a_family_reads_and_writes_configs(installed):
    shape = ModelConfig(family="our_model", vocab_size=64, qk_norm=True)
    hf = config_to_hf(shape, max_positions=128, tokens={})
    assert hf["architectures"] == ["OurModelForCausalLM"]
    assert config_from_hf(hf, "config.json").qk_norm
    del hf["max_position_embeddings"]
    assert position_limit("our_model", hf) == 4096


def test_experiments_know_the_method(installed):
    assert "gentle" in known_methods()
    assert trains("gentle")
    check_experiment(ExperimentConfig(methods=("gentle", "fit")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--train.method", "gentle"], "train.method: 'gentle' is not one of fit, "),
        (["--model.family", "our_model"], "model.family: 'our_model' is unknown; choose among llama, "),
    ],
)
def test_without_the_package_names_are_unknown(arguments, said):
    with pytest.raises(InputError, match=re.escape(said)):
        load_config(arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import absent_module", r"cannot be imported \(ModuleNotFoundError: .*absent_module"),
        ("x = (", r"cannot be imported \(SyntaxError"),
        ("made = 1", "has no build;"),
        ("import sys; sys.exit(0)", r"cannot be imported \(SystemExit: 0\)"),
        ("import os; os._exit(0)", r"cannot be imported \(_ExitCalled: os._exit\(0\) was called\)"),
        ("def build(config, seed): raise SystemExit(0)", r"cannot be built \(SystemExit: 0\)"),
        ("def build(config, seed): return 1 / 0", r"cannot be built \(ZeroDivisionError: division by zero\)"),
        ("def build(config, seed): pass", "builds no Task but None;"),
    ],
)
def test_a_broken_package_is_one_line_with_its_name(text, said, tmp_path, monkeypatch):
    name = f"broken-{len(text)}"
    module = name.replace("-", "_")
    entries = {"fit_jax.tasks": {"bad": module, "demo": module}}
    install(tmp_path, name, {"__init__.py": text}, entries)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=f"package {name}: {module}, .*{said}.* fix or uninstall") as error:
        build_task(TaskConfig(name="bad"), 0)
    assert "\n" not in str(error.value)
    assert build_task(TaskConfig(train_examples=40, validation_examples=12, test_examples=10), 0)  # its own goes first


def test_two_packages_of_one_name_are_told(tmp_path, monkeypatch):
    for name in ("first-one", "second-one"):
        install(tmp_path, name, {"__init__.py": ""}, {"fit_jax.tasks": {"same": name.replace("-", "_")}})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"several packages offer it .*first-one, second-one"):
        build_task(TaskConfig(name="same"), 0)
