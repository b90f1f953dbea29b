"""What a plan says as JSON and on the terminal."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from fit_jax.config import RehearsalConfig
from fit_jax.parallel.sharding import bytes_held
from fit_jax.planning.compiled import Program
from fit_jax.planning.memory import plan_memory
from fit_jax.planning.plan import Plan
from fit_jax.planning.plan_report import as_json, print_plan
from fit_jax.planning.roofline import plan_step
from fit_jax.units import duration

MIB = 2**20


PROGRAM = Program(3.0, 5.0 * MIB, 2.0 * MIB, ())


@pytest.fixture
def plan(planned, machine) -> Plan:
    """The plan of a tiny run of 100 steps, with programs that were not compiled."""
    load, state, mesh = planned(data=8)
    held = bytes_held((state.trainable, state.frozen)), bytes_held(state.opt_state)
    time, memory = plan_step(load, state, mesh, machine), plan_memory(load, state, mesh, machine)
    evaluation = PROGRAM._replace(temp=MIB)
    return Plan(machine, load, memory, held, PROGRAM, evaluation, time, {"all-reduce": 9.0 * MIB}, ("a note",))


def printed(plan, price=None) -> str:
    text = io.StringIO()
    print_plan(plan, price, Console(file=text, width=120))
    return text.getvalue()


def test_the_facts_are_the_plans(plan):
    facts = json.loads(json.dumps(as_json(plan, price=1.5)))
    assert (facts["topology"], facts["devices"], facts["fits"]) == ("v5e:2x4", 8, True)
    assert facts["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1, "context": 1, "expert": 1, "slices": 1}
    assert (facts["rows"], facts["sequence_length"], facts["targets_per_row"]) == (8, 32, 4)
    assert facts["compiled_bytes"]["train"]["total"] == 7 * MIB
    assert facts["spare_bytes"] == facts["available_bytes"] - 7 * MIB
    assert (facts["parameter_bytes"], facts["optimizer_bytes"]) == plan.held
    assert facts["planned_bytes"]["total"] == pytest.approx(
        sum(size for part, size in facts["planned_bytes"].items() if part != "total")
    )
    assert facts["tokens_per_second"] == pytest.approx(8 * 32 / plan.time.total)
    rehearsed = replace(plan.load, rehearsal=RehearsalConfig(files=("a.txt",), rows=4))
    facts = as_json(replace(plan, load=rehearsed))
    assert facts["rehearsal_rows"] == 4
    assert facts["tokens_per_second"] == pytest.approx((8 + 4) * 32 / plan.time.total)


def test_hours_and_dollars_follow_from_the_steps(plan):
    plan = replace(plan, load=replace(plan.load, steps=1000))
    facts = as_json(plan, price=1.5)
    assert facts["hours"] == pytest.approx(1000 * plan.time.total / 3600)
    assert facts["dollars"] == pytest.approx(1.5 * 8 * facts["hours"])
    assert facts["dollars_per_thousand_steps"] == pytest.approx(facts["dollars"])
    open_ended = as_json(replace(plan, load=replace(plan.load, steps=None)), price=1.5)
    assert open_ended["hours"] is open_ended["dollars"] is None
    assert open_ended["dollars_per_thousand_steps"] == pytest.approx(facts["dollars"])
    assert as_json(plan)["dollars"] is None


def test_the_verdict_is_printed(plan):
    text = printed(plan, price=1.5)
    assert "fits, with 15.74 GiB a device to spare" in text
    assert "8 rows of 32 tokens and 4 targets in 1 microbatch(es)" in text
    assert f"100 steps: {duration(plan.load.steps * plan.time.total)}, $" in text
    text = printed(replace(plan, train=PROGRAM._replace(failure="Ran out of memory on HBM")))
    assert "does not fit: by the compiler, though the planned bytes would" in text
    assert "the compiler says: Ran out of memory on HBM" in text
    assert "try: recompute layers in the backward pass: --model.remat full" in text
    text = printed(replace(plan, train=PROGRAM._replace(temp=2.0**40)))
    assert "does not fit: 1008.25 GiB a device too much" in text


def test_what_was_assumed_is_printed(plan):
    text = printed(replace(plan, load=replace(plan.load, notes=("a shape was taken on trust",))))
    assert "note: a shape was taken on trust" in text
    assert "note: a note" in text
    assert "assumed: matrix products reach 70% of the bf16 peak" in text
