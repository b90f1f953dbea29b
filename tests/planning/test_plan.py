"""A plan of the real steps, compiled once for a machine of simulated devices, and its verdict."""

import importlib.util
from dataclasses import replace

import jax
import pytest

from fit_jax.config import Config
from fit_jax.errors import InputError
from fit_jax.parallel.topology import Topology
from fit_jax.planning import plan as planning
from fit_jax.planning.compiled import Program
from fit_jax.planning.plan import make_plan
from fit_jax.planning.workload import workload


@pytest.fixture
def uncompiled(monkeypatch):
    """Programs that are not compiled; `fails` says why the train step would not."""

    def stand(fails: str | None = None, bytes: float = 2.0**20) -> None:
        program = Program(1.0, bytes, 0.0, ())
        monkeypatch.setattr(planning, "compile_train", lambda load, topology: program._replace(failure=fails))
        monkeypatch.setattr(planning, "compile_evaluation", lambda load, topology: program)

    stand()
    return stand


def test_a_plan_compiles_the_real_steps(machine, tiny):
    plan = make_plan(tiny("--mesh.fsdp", "4", "--mesh.data", "2"), machine)
    assert plan.fits
    assert plan.advice == ()
    parameters, optimizer = plan.held
    assert plan.planned.parameters == parameters
    # The arguments are the state and the batch of (rows / 8) rows of three and four integer arrays, and the step.
    batch = 8 // 8 * 4 * (3 * 32 + 4 * 4) + 4
    assert plan.train.arguments == pytest.approx(parameters + optimizer + batch, rel=0.01)
    assert plan.train.collectives
    assert plan.traffic["all-gather"] > 0
    assert plan.traffic["all-gather"] == sum(c.wire for c in plan.train.collectives if c.kind == "all-gather")
    assert 0 < plan.time.compute <= plan.time.total


def test_the_mesh_is_filled_in(machine, tiny, uncompiled):
    plan = make_plan(tiny("--mesh.fsdp", "4"), machine)
    assert (plan.load.mesh.data, plan.load.mesh.fsdp, plan.load.mesh.tensor, plan.load.mesh.context) == (2, 4, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--train.batch_size", "9"), r"train\.batch_size: 9 rows .* multiple of 8"),
        (("--train.accumulate", "2"), r"train\.batch_size: 8 rows .* multiple of 16"),
        (("--mesh.data", "1", "--mesh.context", "8", "--train.sequence_length", "36"), r"sequence_length: 36 tokens"),
        (("--mesh.data", "3"), "cannot cover 8 device"),
    ],
)
def test_a_batch_that_the_mesh_does_not_divide_is_told(machine, tiny, uncompiled, options, message):
    with pytest.raises(InputError, match=message):
        make_plan(tiny(*options), machine)


def test_an_imported_model_with_an_adapter_is_planned(machine, tiny, uncompiled, imported, adapter):
    """Adapters alone have moments; a whole model would have two for every parameter."""
    plan = make_plan(tiny("--model.pretrained", str(imported), "--lora.adapter", str(adapter)), machine)
    parameters, optimizer = plan.held
    assert plan.load.lora.rank == 3
    assert 0 < optimizer < parameters / 5
    whole = make_plan(tiny("--model.pretrained", str(imported), "--lora.rank", "0"), machine)
    assert whole.held[1] == pytest.approx(2 * whole.held[0], rel=0.01)


def test_what_does_not_fit_says_what_to_change_largest_part_first(machine, tiny, uncompiled):
    uncompiled(fails="Ran out of memory on HBM")
    plan = make_plan(tiny("--lora.rank", "0", "--train.batch_size", "16"), machine)
    assert not plan.fits
    assert plan.traffic == {"all-reduce": pytest.approx(plan.traffic["all-reduce"])}  # planned: copies sum gradients
    advice = "\n".join(plan.advice)
    for remedy in ("--lora.rank 16", "--model.remat full", "--mesh.fsdp 8", "--train.accumulate 2"):
        assert remedy in advice
    assert advice.index("--lora.rank 16") < advice.index("--mesh.fsdp 8")  # two moments outweigh the parameters
    with_adapters = make_plan(tiny("--model.param_dtype", "float32"), machine).advice
    assert any("--model.quantize int8" in line for line in with_adapters)
    assert not any("--lora.rank 16" in line for line in with_adapters)


def test_the_plan_of_a_mixture_tells_of_its_exchange_its_loss_and_a_mesh_that_covers_the_machine(
    machine, tiny, uncompiled
):
    mixture = ("--model.family", "mixtral", "--model.experts", "4", "--mesh.expert", "4", "--lora.rank", "0")
    plan = make_plan(tiny(*mixture, "--train.expert_balance", "0.01"), machine)
    assert plan.traffic["tokens to experts"] > 0  # which no program tells
    assert "tokens to experts" not in make_plan(tiny(), machine).traffic
    assert plan.load.expert_balance == 0.01
    uncompiled(fails="Ran out of memory on HBM")
    advice = "\n".join(make_plan(tiny(*mixture), machine).advice)
    assert "--mesh.data 1 --mesh.fsdp 8 --mesh.expert 1" in advice


def test_what_compiles_beyond_the_memory_does_not_fit(machine, tiny, uncompiled):
    uncompiled(bytes=machine.accelerator.memory + 2.0**30)
    plan = make_plan(tiny(), machine)
    assert plan.spare == -(2.0**30)
    assert not plan.fits


def test_a_compiler_out_of_memory_is_an_answer_and_other_failures_are_not(machine, tiny, monkeypatch):
    def fail(message):
        def compile_train_step(*args, **kwargs):
            raise jax.errors.JaxRuntimeError(message)

        monkeypatch.setattr("fit_jax.planning.compiled.compile_train_step", compile_train_step)

    fail("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required (20.0G) exceeds available (15.7G).\n")
    effort = getattr(jax.config, "jax_exec_time_optimization_effort", None)  # not in newer versions of JAX
    program = planning.compile_train(replace(workload(tiny())), machine)
    assert program.failure.startswith("Ran out of memory on HBM, the total memory required (20.0G)")
    assert getattr(jax.config, "jax_exec_time_optimization_effort", None) == effort
    fail("INTERNAL: a fault")
    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault"):
        planning.compile_train(workload(tiny()), machine)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler (libtpu)")
def test_a_tpu_step_compiles_ahead_of_time(tiny):
    options = ["--train.sequence_length", "128", "--mesh.data", "1", "--mesh.fsdp", "4", "--model.head_dim", "64"]
    plan = make_plan(tiny(*options, "--model.compute_dtype", "bfloat16"), Topology.parse("v5e:2x2"))
    assert plan.fits
    too_long = ["--train.sequence_length", "131072", "--train.batch_size", "512", "--model.attention", "xla"]
    assert make_plan(tiny(*options, *too_long), Topology.parse("v5e:2x2")).spare < 0


def test_the_plan_of_a_default_config_is_the_demos(machine, uncompiled):
    plan = make_plan(replace(Config(), train=replace(Config().train, batch_size=16)), machine)
    assert plan.load.steps == 600
