"""The paper's configs: every task with every model parses, resolves and plans, from the shapes that stand in them."""

from itertools import product
from pathlib import Path

import pytest

from fit_jax.config import Config, load_config
from fit_jax.data.tasks import TASKS
from fit_jax.parallel.mesh import make_mesh
from fit_jax.planning.compiled import place
from fit_jax.planning.memory import plan_memory
from fit_jax.planning.roofline import plan_step
from fit_jax.planning.workload import workload
from fit_jax.runs.resolve import check_mesh

PAPER = Path(__file__).resolve().parents[2] / "configs" / "paper"
TASK_NAMES = sorted(path.stem for path in (PAPER / "tasks").glob("*.yaml"))
# Parameters of the published weights, which the shapes must give.
SIZES = {
    "llama31_8b": 8.03e9,
    "mistral_7b": 7.25e9,
    "qwen25_1b5": 1.54e9,
    "qwen25_3b": 3.09e9,
    "qwen25_7b": 7.62e9,
    "vicuna_13b": 13.02e9,
}


def composed(task: str, model: str, *options: str) -> Config:
    files = [PAPER / "tasks" / f"{task}.yaml", PAPER / "models" / f"{model}.yaml"]
    return load_config([text for file in files for text in ("--config", str(file))] + list(options))


def test_the_models_are_the_papers_and_one_for_plans():
    assert {path.stem for path in (PAPER / "models").glob("*.yaml")} == {*SIZES, "llama_70b"}
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


@pytest.mark.parametrize(("task", "model"), product(TASK_NAMES, SIZES))
def test_every_task_goes_with_every_model(task, model):
    config = composed(task, model)
    assert (config.task.name, config.run_dir) == (task, f"runs/paper/{task}")
    load = workload(config)
    assert any(f"{config.model.pretrained} is not at hand" in note for note in load.notes)
    assert (load.rows, load.lora.rank, load.steps) == (64, 16, None)
    assert load.model.vocab_size > 30000


@pytest.mark.parametrize("model", SIZES)
def test_a_model_is_as_large_as_its_weights_and_fits_the_machine_its_file_names(model, machine):
    config = composed("ss", model)
    mesh = make_mesh(config.mesh, machine.devices())
    check_mesh(config.train, mesh)
    load = workload(config)
    state = place(load, mesh).state
    count = sum(leaf.size for leaf in state.frozen.flat_state().leaves)
    assert count == pytest.approx(SIZES[model], rel=0.005)
    assert plan_memory(load, state, mesh, machine).total < machine.accelerator.memory
    assert 0 < plan_step(load, state, mesh, machine).total < 60
