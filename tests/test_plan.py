import importlib.util
import json
from pathlib import Path

import jax
import pytest

from fit_jax.config import load_config
from fit_jax.errors import InputError
from fit_jax.parallel.topology import Topology
from fit_jax.plan import main
from fit_jax.planning.memory import bytes_held
from fit_jax.planning.plan import make_plan
from fit_jax.planning.search import candidates, search
from fit_jax.planning.workload import workload

PAPER = Path(__file__).parents[1] / "configs" / "paper"

TINY = [
    *("--model.layers", "3", "--model.width", "64", "--model.feed_forward", "128", "--model.vocab_size", "96"),
    *("--train.sequence_length", "32", "--train.targets_per_row", "4", "--train.batch_size", "8"),
    *("--evaluation.batch_size", "8", "--lora.rank", "2", "--train.steps", "100"),
]


@pytest.fixture
def machine(monkeypatch):
    """`v5e:2x4` whose eight chips are this machine's simulated devices, so that no TPU compiler is needed."""
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[: self.chips])
    monkeypatch.setattr(Topology, "rate", lambda self, group: self.accelerator.link)
    return Topology.parse("v5e:2x4")


def test_a_plan_compiles_the_real_steps(machine):
    plan = make_plan(load_config([*TINY, "--mesh.fsdp", "4", "--mesh.data", "2"]), machine)
    assert plan.fits
    assert plan.advice == ()
    parameters, optimizer = plan.held
    assert plan.planned.parameters == parameters
    # The arguments are the state and the batch of (rows / 8) rows of three and four integer arrays, and the step.
    batch = 8 // 8 * 4 * (3 * 32 + 4 * 4) + 4
    assert plan.train.arguments == pytest.approx(parameters + optimizer + batch, rel=0.01)
    assert plan.train.collectives
    assert plan.traffic["all-gather"] > 0
    assert 0 < plan.time.compute <= plan.time.total


def test_the_search_finds_a_layout_and_writes_its_config(machine, tmp_path, capsys):
    out = tmp_path / "fast.yaml"
    assert main(["--topology", "v5e:2x4", "--search", "--write", str(out), "--json", "--price", "1.2", *TINY]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fits"]
    assert facts["dollars"] == pytest.approx(1.2 * 8 * facts["hours"])
    again = load_config(["--config", str(out)])
    found = {axis: getattr(again.mesh, axis) for axis in ("data", "fsdp", "tensor", "context", "slices")}
    assert found == facts["mesh"]
    with pytest.raises(InputError, match="nothing is overwritten"):
        main(["--topology", "v5e:2x4", "--write", str(out), *TINY])


def test_candidates_trade_memory_for_time(machine):
    load = workload(load_config([*TINY, "--model.layers", "12", "--train.batch_size", "32"]))
    found = {(c.load.mesh.fsdp, c.load.accumulate, c.load.model.remat): c for c in candidates(load, machine)}
    keep, again = found[8, 1, "none"], found[8, 1, "full"]
    assert again.time.compute > keep.time.compute
    assert again.bytes < keep.bytes
    assert found[8, 4, "full"].bytes < again.bytes


def test_an_oversized_plan_says_what_to_change(machine, monkeypatch, capsys):
    def exhausted(*args, **kwargs):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required (20.0G) exceeds available (15.7G)."
        )

    monkeypatch.setattr("fit_jax.planning.compiled.compile_train_step", exhausted)
    assert main(["--topology", "v5e:2x4", "--lora.rank", "0", *TINY[:-4]]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "does not fit" in text
    assert "Ran out of memory on HBM" in text
    assert "--lora.rank 16" in text
    assert "--model.remat full" in text
    monkeypatch.setattr("fit_jax.planning.search.MARGIN", 0.0)
    with pytest.raises(InputError, match="nothing fits"):
        search(load_config(TINY), machine)


def test_a_pretrained_model_needs_its_config_alone(machine, tmp_path):
    shape = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 80, "max_position_embeddings": 64}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    load = workload(load_config(["--model.pretrained", str(tmp_path), "--model.remat", "full"]))
    assert (load.model.width, load.model.vocab_size, load.model.remat) == (64, 80, "full")
    with pytest.raises(InputError, match="write the model's shape"):
        workload(load_config(["--model.pretrained", str(tmp_path / "none")]))
    written = workload(load_config(["--model.pretrained", str(tmp_path / "none"), "--model.vocab_size", "50"]))
    assert written.model.vocab_size == 50
    assert any("not at hand" in note for note in written.notes)


@pytest.mark.parametrize("path", sorted(PAPER.glob("*_*.yaml")), ids=lambda path: path.stem)
def test_the_papers_configs_plan_without_a_download(path):
    load = workload(load_config(["--config", str(path)]))
    assert load.model.pretrained
    assert load.model.width % load.model.heads == 0
    assert load.model.vocab_size > 30000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--topology is missing"),
        (["--topology"], "--topology needs a value"),
        (["--topology", "v5e:2x4", "--slices", "two"], "--slices 'two' is no number"),
        (["--topology", "moon:1"], "unknown device kind"),
        (["--topology", "v5e:2x4", "--train.batch_size", "9"], "mesh.data x mesh.fsdp"),
    ],
)
def test_wrong_options_are_one_line(machine, arguments, message):
    with pytest.raises(InputError, match=message) as raised:
        main([*arguments])
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler (libtpu)")
def test_a_tpu_step_compiles_ahead_of_time():
    options = ["--train.sequence_length", "128", "--mesh.data", "1", "--mesh.fsdp", "4", "--model.head_dim", "64"]
    plan = make_plan(load_config([*TINY, *options, "--model.compute_dtype", "bfloat16"]), Topology.parse("v5e:2x2"))
    assert plan.fits
    assert bytes_held(()) == 0
    too_long = ["--train.sequence_length", "131072", "--train.batch_size", "512", "--model.attention", "xla"]
    assert make_plan(load_config([*TINY, *options, *too_long]), Topology.parse("v5e:2x2")).spare < 0
