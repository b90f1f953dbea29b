"""The roofline counts what the shapes and the sharding rules imply, and scales as they do."""

from dataclasses import replace

import pytest

from fit_jax.models.flops import forward_flops, train_flops
from fit_jax.parallel.hlo import Collective
from fit_jax.parallel.sharding import bytes_held, named_leaves
from fit_jax.parallel.topology import Topology
from fit_jax.planning.attention import kernel_work
from fit_jax.planning.memory import plan_memory
from fit_jax.planning.roofline import (
    MATMUL_SHARE,
    StepTime,
    compiled_step,
    plan_evaluation,
    plan_step,
    plan_traffic,
)

LONG = ("--focus.branches", "1", "--train.sequence_length", "256")


def traffic(planned, *options, **sizes) -> dict[tuple[str, str], float]:
    return {(row.kind, row.axis): row.bytes for row in plan_traffic(*planned(*options, **sizes))}


def test_arithmetic_is_the_steps_over_the_devices_peak(planned, machine):
    load, state, mesh = planned("--model.attention", "xla", data=4)
    time = plan_step(load, state, mesh, machine)
    assert time.flops == train_flops(load.model, load.lora, load.rows, load.sequence_length, load.targets)
    assert time.compute == pytest.approx(time.flops.total / (4 * machine.accelerator.flops * MATMUL_SHARE))
    twice = plan_step(replace(load, rows=2 * load.rows), state, mesh, machine)
    assert twice.compute == pytest.approx(2 * time.compute)


@pytest.mark.usefixtures("machine")
def test_cudnn_skips_the_masked_half(planned):
    machine = Topology.parse("h100:8")
    fused, plain = (plan_step(*planned(*LONG, "--model.attention", kind), machine) for kind in ("auto", "xla"))
    peak = machine.accelerator.flops * MATMUL_SHARE
    assert plain.compute - fused.compute == pytest.approx(plain.flops.attention / 2 / peak)
    assert plain.memory > fused.memory


def test_the_kernel_computes_and_reads_the_blocks_that_it_visits(planned, machine):
    load, state, mesh = planned(*LONG, "--model.attention", "auto", fsdp=4)
    xla = replace(load, model=replace(load.model, attention="xla"))
    found, plain = plan_step(load, state, mesh, machine), plan_step(xla, state, mesh, machine)
    work = kernel_work(load.model, load.rows, load.sequence_length, load.targets, lambda width: "tpu", backward=True)
    rate = 4 * machine.accelerator.flops * MATMUL_SHARE
    assert plain.compute - found.compute == pytest.approx((plain.flops.attention - work.flops) / rate)
    card = Topology.parse("h100:8")  # whose fused attention is cuDNN's, of unknown traffic
    without = plan_step(load, state, mesh, card).memory * card.accelerator.bandwidth
    assert found.memory * machine.accelerator.bandwidth - without == pytest.approx(work.bytes / 4)
    many = replace(load, evaluation_rows=2**16)  # so that arithmetic is what takes the time
    forward = kernel_work(load.model, 2**16, load.sequence_length, load.targets, lambda width: "tpu", backward=False)
    whole = forward_flops(load.model, load.lora, 2**16, load.sequence_length, load.targets)
    expected = (whole.total - whole.attention + forward.flops) / rate
    assert plan_evaluation(many, state, mesh, machine) == pytest.approx(expected)


def test_one_device_sends_nothing(planned):
    assert traffic(planned) == {}


def test_copies_sum_the_gradients_of_what_is_trained(planned):
    _, state, _ = planned(data=4)
    assert traffic(planned, data=4) == {("all-reduce", "data"): 2 * 3 / 4 * bytes_held(state.trainable)}


def test_fsdp_gathers_every_weight_twice_and_scatters_trained_gradients(planned):
    _, state, _ = planned(fsdp=4)
    found = traffic(planned, fsdp=4)
    assert found == {
        ("all-gather", "fsdp"): 2 * 3 * bytes_held((state.trainable, state.frozen)),  # three other parts
        ("reduce-scatter", "fsdp"): 3 * bytes_held(state.trainable),
    }
    again = traffic(planned, "--train.accumulate", "2", fsdp=4)
    assert all(again[row] == 2 * found[row] for row in found)


def test_tensor_sums_and_context_gathers_follow_the_activations(planned):
    residual = 4 * 8 * 32 * 64  # bytes, rows, tokens, width
    sums = traffic(planned, "--model.remat", "dots", tensor=2)["all-reduce", "tensor"]
    assert sums == 2 * 4 * 3 * residual / 2  # four in each of three layers, out and back
    keys_values = 2 * 4 * 8 * 32 * 64
    found = traffic(planned, "--model.remat", "full", context=2)
    assert found["all-gather", "context"] == 2 * 3 * keys_values / 2  # forward, and once more for the backward pass
    assert found["reduce-scatter", "context"] == 3 * keys_values / 2
    shape = ("--model.linear.key_width", "8", "--model.linear.value_width", "10", "--model.linear.layers", "[0]")
    keeping = traffic(planned, *shape, context=2)  # what it convolves: queries and keys of 8, values of 10
    assert keeping["reduce-scatter", "context"] == (2 * keys_values + 4 * 8 * 32 * (8 + 8 + 10)) / 2


MIXTURE = ("--model.family", "mixtral", "--model.experts", "8", "--lora.rank", "0", "--model.remat", "dots")


def test_tokens_go_to_their_experts_and_back_and_gradients_of_what_all_have_are_summed(planned, machine):
    _, state, _ = planned(*MIXTURE, expert=4)
    trained = named_leaves(state.trainable)
    of_experts = {name for name in trained if "mlp." in name and "_proj" in name}
    shared = sum(leaf.size * 4 for name, leaf in trained.items() if name not in of_experts)
    assert bytes_held(state.trainable) == shared + sum(trained[name].size * 4 for name in of_experts) / 4
    sent = 4 * (8 // 4) * 32 * 64 * 2  # bytes, rows of a device, tokens, width, experts of a token
    assert traffic(planned, *MIXTURE, expert=4) == {
        ("all-reduce", "expert"): 2 * 3 / 4 * shared,
        ("all-to-all", "expert"): 4 * 3 * sent * 3 / 4,  # four times in each of three layers
    }
    load, state, mesh = planned(*MIXTURE, expert=4)
    tokens = traffic(planned, *MIXTURE, expert=4)["all-to-all", "expert"] / machine.accelerator.link
    assert plan_step(load, state, mesh, machine).exposed == pytest.approx(tokens)
    # What a compiled program sends there it does not say.
    assert compiled_step(load, state, mesh, machine, []).exposed == pytest.approx(tokens)


def test_no_token_travels_where_experts_stay(planned, machine):
    stays = ("--model.experts", "3")
    for options in ((*MIXTURE, *stays), ("--lora.rank", "0")):
        assert {kind for kind, _ in traffic(planned, *options, expert=4)} == {"all-reduce"}
    data, stayed = (plan_evaluation(*planned(*MIXTURE, *stays, **{a: 4}), machine) for a in ("data", "expert"))
    assert data == stayed
    load, state, mesh = planned(*MIXTURE, expert=4)
    sent = 4 * (8 // 4) * 32 * 64 * 2 * 2 * 3 * 3 / 4  # there and back in each of three layers
    without = replace(load, model=replace(load.model, experts=0))
    assert plan_evaluation(load, state, mesh, machine) > sent / machine.accelerator.link
    assert plan_evaluation(without, state, mesh, machine) < sent / machine.accelerator.link


def test_planned_collectives_are_exposed_by_their_axis(planned, machine):
    for axis in ("data", "fsdp", "tensor", "context"):
        time = plan_step(*planned(**{axis: 2}), machine)
        seconds = sum(row.bytes for row in plan_traffic(*planned(**{axis: 2}))) / machine.accelerator.link
        exposed = axis in ("tensor", "context")
        assert (time.exposed, time.overlapped) == pytest.approx((seconds, 0) if exposed else (0, seconds)), axis


def test_arithmetic_waits_for_sums_over_tensor_but_not_for_gathers(planned, machine):
    load, state, mesh = planned(fsdp=2, tensor=2)
    link = machine.accelerator.link
    groups = {"fsdp": (0, 2), "tensor": (0, 1), "all": ()}
    times = {
        name: compiled_step(load, state, mesh, machine, [Collective("all-gather", group, len(group) or 4, 1e6, 3)])
        for name, group in groups.items()
    }
    assert (times["fsdp"].overlapped, times["fsdp"].exposed) == (3 * 1e6 / 2 / link, 0)
    assert (times["tensor"].overlapped, times["tensor"].exposed) == (0, 3 * 1e6 / 2 / link)
    assert (times["all"].overlapped, times["all"].exposed) == (pytest.approx(3 * 1e6 * 3 / 4 / link), 0)


def test_a_step_takes_its_slowest_part_and_what_is_exposed(planned, machine):
    flops = plan_step(*planned(), machine).flops
    time = StepTime(compute=3.0, memory=2.0, overlapped=4.0, exposed=1.0, flops=flops)
    assert (time.total, time.bound) == (5.0, "interconnect")
    assert time.utilisation == pytest.approx(MATMUL_SHARE * 3 / 5)
    assert time._replace(overlapped=0.0).bound == "compute"
    assert time._replace(overlapped=0.0, memory=9.0).bound == "memory"


def test_rehearsal_costs_its_rows_with_all_their_targets_and_the_base(planned, machine):
    def cost(*options):
        load, state, mesh = planned(*options, fsdp=2)
        return plan_step(load, state, mesh, machine).flops.total, plan_memory(load, state, mesh, machine).total

    files = ("--rehearsal.files", "[a.txt]", "--rehearsal.rows", "8")
    none, some, against = cost(), cost(*files), cost(*files, "--rehearsal.kl", "1")
    assert some[0] > 2 * none[0]
    assert against[0] > some[0]
    assert some[1] > none[1]
