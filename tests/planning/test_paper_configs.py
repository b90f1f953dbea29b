"""The paper's configs: every task with every model parses, resolves and plans, from the shapes that stand in them."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from fit_jax.config import Config, load_config
from fit_jax.data.loader import TrainLoader
from fit_jax.data.tasks import TASKS, build_task
from fit_jax.data.vocabulary import task_texts
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.tokenizers import train_tokenizer
from fit_jax.methods import training_method
from fit_jax.models.model_folder import unlike_family
from fit_jax.parallel.mesh import make_mesh
from fit_jax.planning.compiled import place
from fit_jax.planning.memory import plan_memory
from fit_jax.planning.roofline import plan_step
from fit_jax.planning.workload import workload
from fit_jax.runs.resolve import check_mesh, resolve
from fit_jax.runs.run import Run
from fit_jax.runs.trainer import steps_of

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
TASK_NAMES = sorted(path.stem for path in (PAPER / "tasks").glob("*.yaml"))
OTHER_TASKS = [name for name in TASK_NAMES if name not in ("ss", "bbq")]
# Parameters of the published weights, which the shapes must give.
SIZES = {
    "llama31_8b": 8.03e9,
    "mistral_7b": 7.25e9,
    "qwen25_1b5": 1.54e9,
    "qwen25_3b": 3.09e9,
    "qwen25_7b": 7.62e9,
    "vicuna_13b": 13.02e9,
}
# Models that people tune today, in none of the paper's runs, and the parameters of their text models.
TODAY = {
    "gemma4_31b": 30.7e9,
    "gemma4_e4b": 7.46e9,
    "gpt_oss_20b": 20.9e9,
    "ministral3_8b": 8.49e9,
    "olmo3_7b": 7.3e9,
    "qwen3_30b_a3b": 30.5e9,
    "qwen3_8b": 8.19e9,
}


def composed(task: str, model: str, *options: str) -> Config:
    files = [PAPER / "tasks" / f"{task}.yaml", PAPER / "models" / f"{model}.yaml"]
    return load_config([text for file in files for text in ("--config", str(file))] + list(options))


@pytest.fixture
def stand_in(data_dir, tmp_path):
    """The run of a paper config on few examples and with a small tokenizer of their texts."""

    def make(config: Config) -> Run:
        sizes = {"train_examples": 160, "validation_examples": 20, "test_examples": 10}
        parts = ("Age",) if config.task.name.startswith("bbq") else ()
        config = replace(config, task=replace(config.task, data_dir=str(data_dir), categories=parts, **sizes))
        task, train = build_task(config.task, 0), config.train
        encoder = PromptEncoder(
            train_tokenizer(task_texts(task), 600),
            task.text,
            config.focus.place,
            sequence_length=train.sequence_length,
            long_text=train.long_text,
        )
        mesh, resolved = make_mesh(config.mesh), resolve(config, pretrained_found=False)
        return Run(config, tmp_path, task, encoder, mesh, resolved.decoder(600), resolved.lora)

    return make


def test_the_models_are_the_papers_those_of_today_and_one_for_plans():
    assert {path.stem for path in (PAPER / "models").glob("*.yaml")} == {*SIZES, *TODAY, "llama_70b"}
    assert set(TASK_NAMES) == set(TASKS) - {"demo", "jsonl"}
    for path in (PAPER / "models").glob("*.yaml"):
        assert f"--config configs/paper/models/{path.name}" in path.read_text().splitlines()[0]


def test_the_recipe_is_the_papers():
    """What the paper's section 3 says, and where it is silent what this project has settled on."""
    config = load_config(["--config", str(PAPER / "base.yaml")])
    assert (config.lora.rank, config.lora.alpha, config.lora.dropout) == (16, 32.0, 0.05)
    assert len(config.lora.targets) == 7  # all attention and feed-forward projections
    assert (config.optimizer.learning_rate, config.optimizer.warmup, config.optimizer.final) == (2e-4, 0.03, 0.0)
    train = config.train
    assert (train.steps, train.epochs, train.patience, train.best) == (None, 5, 3, "loss")
    # One example a row and one focus instruction an example: rows are examples.
    assert (train.batch_size, train.packing, config.focus.branches) == (64, False, 1)
    assert config.evaluation.validation_examples is None  # the whole of its sets


@pytest.mark.parametrize(("task", "model"), [*product(TASK_NAMES, SIZES), *product(["ss"], TODAY)])
def test_every_task_goes_with_every_model(task, model):
    config = composed(task, model)
    assert (config.task.name, config.run_dir) == (task, f"runs/paper/{task}")
    load = workload(config)
    assert any(f"{config.model.pretrained} is not available" in note for note in load.notes)
    assert (load.rows, load.lora.rank, load.steps) == (64, 16, None)
    assert load.model.vocab_size > 30000


@pytest.mark.parametrize(("task", "model", "method"), product(TASK_NAMES, SIZES, ("poe", "group_dro")))
def test_the_methods_against_bias_go_with_every_task_and_model(task, model, method):
    config = composed(task, model, "--train.method", method)
    assert (config.train.method, config.train.epochs, workload(config).steps) == (method, 5, None)


@pytest.mark.parametrize("task", ["ss", "bbq", *(pytest.param(t, marks=pytest.mark.slow) for t in OTHER_TASKS)])
def test_the_methods_against_bias_train_by_epochs_on_every_task(task, stand_in):
    """On few examples, whose tokens a small tokenizer makes in place of a model's own."""
    run = stand_in(composed(task, "qwen25_1b5"))
    examples, train = len(run.task.splits["train"].examples), run.config.train
    for name in ("poe", "group_dro"):
        run = replace(run, config=replace(run.config, train=replace(train, method=name)))
        assert steps_of(run) == round(5 * examples / train.batch_size) > 1
        batch = TrainLoader(training_method(run.task, run.config).sampler, run.encoder, run.config).batch(0)
        assert batch.examples == train.batch_size
        assert (batch.chosen.sum(axis=1) == 1).all()  # one example a row


# Those of several kinds of layers take seconds to lay out.
@pytest.mark.parametrize(
    "model",
    [
        *SIZES,
        *(
            pytest.param(m, marks=pytest.mark.slow) if m in ("gemma4_31b", "gemma4_e4b", "qwen3_30b_a3b") else m
            for m in TODAY
        ),
    ],
)
def test_a_model_is_as_large_as_its_weights_and_fits_a_small_machine(model, machine):
    config = composed("ss", model)
    mesh = make_mesh(config.mesh, machine.devices())
    check_mesh(config, mesh)
    load = workload(config)
    state = place(load, mesh).state
    count = sum(leaf.size for leaf in state.frozen.flat_state().leaves)
    assert count == pytest.approx((SIZES | TODAY)[model], rel=0.005)
    assert plan_memory(load, state, mesh, machine).total < machine.accelerator.memory
    assert 0 < plan_step(load, state, mesh, machine).total < 60


@pytest.mark.parametrize("model", TODAY)
def test_a_shape_is_one_that_its_family_has(model):
    """Written as its `config.json` and read again it is the same."""
    assert unlike_family(workload(composed("ss", model)).model) is None
