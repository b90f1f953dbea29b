"""Methods with rehearsal on a mesh: the losses of one device, by epochs, and resumed bit for bit."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from fit_jax.config import Config, load_config
from fit_jax.methods import training_method
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.run import Run, open_checkpoints, set_up
from fit_jax.runs.run_folder import claimed
from fit_jax.runs.trainer import Ending, steps_of, train
from fit_jax.training.display import Display
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import TrainState, abstract_state, with_objective

TINY = """
task: {rho_train: 0.8, train_examples: 48, validation_examples: 8, test_examples: 4}
tokenizer: {vocab_size: 300}
model: {layers: 1, width: 16, feed_forward: 24, heads: 2, kv_heads: 2, param_dtype: float32, compute_dtype: float32}
lora: {rank: 4, dropout: 0.0}  # which microbatches would draw otherwise than a whole batch
optimizer: {learning_rate: 0.01}
mesh: {data: 2, fsdp: 2, tensor: 2}
train: {epochs: 2, batch_size: 8, sequence_length: 384, accumulate: 2, group_step: 0.5, log_every: 1,
  validate_every: null, checkpoint_every: 3, patience: null}
evaluation: {validation_examples: 8, batch_size: 8}
rehearsal: {rows: 8, kl: 0.5}
"""


PAPER = Path(__file__).parents[2] / "configs" / "paper" / "base.yaml"


class BrokenOff(Exception):
    """Stands for what ends a run without a word."""


@pytest.fixture(scope="module", params=["poe", pytest.param("group_dro", marks=pytest.mark.slow)])
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def config_of(tmp_path_factory, method):
    """The config of a run of the method, by the folder's name: the paper's runs, tiny and in float32."""
    folder = tmp_path_factory.mktemp(method)
    (folder / "tiny.yaml").write_text(TINY)
    texts = folder / "texts.txt"
    texts.write_text("".join(f"once upon a time there were {n} lamps and {n % 7} tents\n" for n in range(900)))

    def make(name: str) -> Config:
        options = ["--run_dir", str(folder / name), "--train.method", method]
        if method == "poe":  # one of them rehearses besides
            options += ["--rehearsal.files", f"[{texts}]"]
        return load_config(["--config", str(PAPER), "--config", str(folder / "tiny.yaml"), *options])

    return make


def opened(config: Config) -> Run:
    with claimed(config):
        return set_up(config, trains=True)


def records(run: Run) -> list[dict]:
    return [{k: v for k, v in r.items() if k not in TIMING_FIELDS} for r in read_metrics(run.folder / "metrics.jsonl")]


def last_state(run: Run) -> TrainState:
    """What the last checkpoint holds: parameters, the optimizer's state and the objective's own."""
    steps = steps_of(run)
    placed = abstract_state(run.model, run.lora, make_optimizer(run.config.optimizer, steps), run.mesh)
    placed = with_objective(placed, training_method(run.task, run.config).objective.start(), run.mesh)
    checkpoints = open_checkpoints(run, cleans=False)
    state = checkpoints.restore(steps, placed.state)
    checkpoints.close()
    return state


@pytest.fixture(scope="module")
def straight(config_of) -> Run:
    """Two epochs on a mesh of 2 x 2 x 2 devices, in two microbatches a step, without a break."""
    run = opened(config_of("straight"))
    assert train(run) is Ending.ALL_STEPS
    return run


def test_a_run_by_epochs_sees_every_example_so_often(straight):
    rows = records(straight)
    assert [row["step"] for row in rows] == list(range(1, steps_of(straight) + 1))
    in_a_step = max(row["examples"] for row in rows)
    assert sum(row["examples"] for row in rows) == pytest.approx(2 * 48, abs=in_a_step)


def test_a_mesh_with_accumulation_has_the_losses_of_one_device(straight, config_of):
    config = config_of("alone")
    config = replace(config, train=replace(config.train, accumulate=1))
    alone = replace(opened(config), mesh=make_mesh(MeshConfig(), jax.devices()[:1]))
    assert train(alone) is Ending.ALL_STEPS
    expected, found = records(alone), records(straight)
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    for name in {"loss", "rehearsal_loss"} & set(expected[0]):
        assert expected[-1][name] != pytest.approx(expected[0][name], rel=0.01)  # there was something to learn
    if config.rehearsal.files:
        assert expected[0]["rehearsal_kl"] < 1e-5 < expected[-1]["rehearsal_kl"]  # the model begins as its base


def test_a_run_that_broke_off_goes_on_bit_for_bit(straight, config_of, monkeypatch):
    run, advance = opened(config_of("broken")), Display.advance

    def break_off_after_five(self, step):
        advance(self, step)
        if step == 5:
            raise BrokenOff

    with monkeypatch.context() as patch:
        patch.setattr(Display, "advance", break_off_after_five)
        with pytest.raises(BrokenOff):
            train(run)
    assert len(records(run)) > 3  # more was written than the checkpoint of step 3 knows
    assert train(run) is Ending.ALL_STEPS
    assert records(run) == records(straight)
    jax.tree.map(np.testing.assert_array_equal, last_state(run), last_state(straight))


def test_the_weights_of_groups_are_part_of_the_state(straight, method):
    own = last_state(straight).objective
    if method == "poe":
        assert own == ()
    else:
        q = np.exp(np.asarray(own))
        assert q.sum() == pytest.approx(1, rel=1e-5)
        assert q.max() > 1.01 * q.min()
