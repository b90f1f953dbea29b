"""What a training says of itself before its first step."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from fit_jax.config import RehearsalConfig
from fit_jax.models.families import config_to_hf
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.opening_lines import opening_lines


@pytest.fixture
def said(config, task, encoder):
    """The lines of a run of a small state, and of what is changed in its config."""

    def lines(step=0, model=config.model, **changed):
        run = SimpleNamespace(
            config=replace(config, **changed),
            task=replace(task, notes=("a note of the data",)),
            mesh=make_mesh(MeshConfig(data=2), jax.devices()[:2]),
            model=model,
            encoder=encoder,
        )
        state = SimpleNamespace(trainable={"a": np.zeros((20, 1000))}, frozen={"b": np.zeros((150, 1000))})
        return opening_lines(run, SimpleNamespace(state=state, replicated=("a note of the mesh",)), step, 70)

    return lines


def test_data_model_mesh_and_rows_are_told(said, config):
    lines = said()
    assert lines[:2] == ["a note of the data", "a note of the mesh"]
    assert "task demo: 40 training examples" in lines
    assert any(line.startswith("model: 0.17M parameters, 20,000 trained; 2 ") and ", data 2" in line for line in lines)
    rows = f"{config.train.batch_size} rows x {config.train.sequence_length} tokens"
    assert f"70 steps of {rows}" in lines
    assert not any(line.startswith(("rehearsal", "resuming")) for line in lines)


def test_rows_that_are_not_packed_are_shorter(said, config):
    train = replace(config.train, packing=False)
    assert f"70 steps of {train.batch_size} rows x up to {train.sequence_length} tokens" in said(train=train)


def test_rehearsal_is_told_with_its_share_and_resuming_with_its_step(said, config):
    train = replace(config.train, batch_size=12)
    lines = said(step=30, train=train, rehearsal=RehearsalConfig(files=("a.txt",), rows=4))
    assert "rehearsal: 4 rows more in each step, 25% of all" in lines
    assert lines[-1] == "resuming after step 30"


@pytest.mark.parametrize(("quantize", "held"), [("none", "float32"), ("nf4", "nf4, quantised again")])
def test_a_base_that_comes_quantised_is_told_with_what_it_is_held_in(said, config, tmp_path, quantize, held):
    model = replace(config.model, vocab_size=300)
    hf = config_to_hf(model, max_positions=128, tokens={})
    (tmp_path / "config.json").write_text(json.dumps(hf | {"quantization_config": {"quant_method": "awq"}}))
    model = replace(model, pretrained=str(tmp_path), quantize=quantize)
    assert f"{tmp_path}: comes quantised (awq), is held in {held}" in said(model=model)
