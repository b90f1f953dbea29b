"""A look inside: its figures are those of the exchanges, and what it cannot look into is told."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.errors import InputError
from fit_jax.methods.knob import Direction
from fit_jax.models.decoder import Decoder
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs import look_inside
from fit_jax.runs.look_inside import DRAWN, LEARNT, RANDOM, WHOLE, Inside, check_inside, report_inside
from fit_jax.runs.run import TrainedModel

from ..closeness import assert_close


@pytest.fixture
def run(config, task, encoder, decoder, monkeypatch):
    """A run whose model is the untrained one of two layers."""
    graphdef, state = nnx.split(decoder)
    monkeypatch.setattr(look_inside, "load_model", lambda run, which: TrainedModel(graphdef, (state,), 7))
    return SimpleNamespace(
        config=config, folder="RUN", encoder=encoder, task=task, mesh=make_mesh(MeshConfig(), jax.devices()[:1])
    )


def test_the_part_of_the_switch_counts_from_what_strays_to_what_follows():
    inside = Inside([], followed=0.9, strayed=0.1, knob="")
    assert_close([inside.carried(share) for share in (0.1, 0.5, 0.9)], [0.0, 0.5, 1.0], 1e-9)


def test_a_model_that_does_not_follow_instructions_is_not_looked_into(run, tmp_path):
    with pytest.raises(InputError, match="answers do not depend on the instruction"):
        report_inside(run, "best", "iid", tmp_path / "inside")
    assert not (tmp_path / "inside").exists()


def test_a_model_of_one_layer_has_no_inside(run, tmp_path, decoder, monkeypatch):
    graphdef, state = nnx.split(Decoder(replace(decoder.config, layers=1), rngs=nnx.Rngs(0)))
    monkeypatch.setattr(look_inside, "load_model", lambda run, which: TrainedModel(graphdef, (state,), 7))
    with pytest.raises(InputError, match="RUN: a model of one layer has no inside; look into one of two"):
        report_inside(run, "best", "iid", tmp_path)


def test_what_it_asks_is_drawn_by_the_seed_of_the_evaluation(run, tmp_path, config, monkeypatch):
    asked = []

    def switched(base, pairs, options):
        asked.append([pair.instructions for pair in pairs])
        raise InputError("asked")

    monkeypatch.setattr(look_inside, "switched", switched)
    own = replace(config, evaluation=replace(config.evaluation, seed=7))
    for run.config in (config, own, replace(config, seed=7)):
        with pytest.raises(InputError, match="asked"):
            report_inside(run, "best", "iid", tmp_path)
    assert asked[0] != asked[1] == asked[2]


@pytest.mark.parametrize("split", ["train", "somewhere", "n" * 300])
def test_a_split_that_is_no_test_split_is_told(run, split):
    with pytest.raises(InputError, match=rf"--inside {split[:60]}[.]*: the task has no such test split; it has iid"):
        check_inside(run, split)


def test_the_report_holds_each_exchange_of_each_layer(run, tmp_path, monkeypatch, capsys):
    """Of a model that switches wholly by its first layer's residual stream, half by the direction, never by chance.

    Each call compiles a program: one asks for the model's own answers, one for all layers, one for all directions.
    """
    calls = []

    def switched(base, pairs, options):
        calls.append(len(options))
        return {name: [answered(pair, change) for pair in pairs] for name, change in options.items()}

    def answered(pair, change):
        whole, learnt = float(change.exchange.whole.sum()), float(change.exchange.directions[0, 0]) == 1
        number = int(pair.queries[0].example.uid.split("-")[-1].split("#")[0])
        moved = whole > 0 or (learnt and number % 2 == 0)
        return SimpleNamespace(uid=pair.queries[0].example.uid, cluster=str(number), correct=moved)

    monkeypatch.setattr(look_inside, "switched", switched)
    monkeypatch.setattr(look_inside, "layers_that_carry", lambda base, pairs: [0])
    vector = np.eye(32, dtype=np.float32)[0]
    directions = [Direction(0, vector, 0.0, 1.0)]
    monkeypatch.setattr(look_inside, "found_directions", lambda base, pairs, layers, seed: directions)
    monkeypatch.setattr(look_inside, "answer", lambda pairs, subject: [[SimpleNamespace(correct=True)]])
    monkeypatch.setattr(look_inside, "turned_by_knob", lambda *given: "the knob's figures")
    inside = report_inside(run, "best", "iid", tmp_path / "inside")
    assert calls == [1, 1, 1 + RANDOM]
    lines = [json.loads(line) for line in (tmp_path / "inside" / "inside.jsonl").read_text().splitlines()]
    assert [(r["layer"], r["exchanged"]) for r in lines] == [(1, WHOLE), (1, LEARNT), (1, DRAWN)]
    whole, learnt, drawn = (r["part"] for r in lines)
    assert (whole, drawn) == (1.0, 0.0)
    opposed = {q.example.uid for q in _asked(run)}
    even = sum(int(uid.split("-")[-1].split("#")[0]) % 2 == 0 for uid in opposed) / len(opposed)
    assert_close(learnt, even, 1e-6)
    assert inside.followed == 1.0
    assert {p.name for p in (tmp_path / "inside").iterdir()} == {
        "inside.jsonl",
        "inside.svg",
        "inside.png",
        "summary.md",
        "index.html",
    }
    page = (tmp_path / "inside" / "index.html").read_text()
    assert "the knob&#x27;s figures" in page
    assert '<svg role="img" aria-label=' in page
    assert "learnt direction" in capsys.readouterr().out


def _asked(run):
    return [pair.queries[0] for pair in look_inside.opposite_pairs(run.task, "iid", "heldout", run.config.seed)]
