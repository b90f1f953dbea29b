"""Bytes by shapes: exact for what lives between steps, and moving the right way for the rest."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from fit_jax.models.head import chunks_of
from fit_jax.parallel.sharding import bytes_held, named_leaves
from fit_jax.planning.memory import microbatch_rows, plan_memory


def on_first_device(tree) -> int:
    """Bytes of a tree's arrays that really lie on one device, once they are made."""
    made = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), tree)
    first = jax.devices()[0]
    return sum(s.data.nbytes for leaf in jax.tree.leaves(made) for s in leaf.addressable_shards if s.device == first)


STATES = {"lora": (), "full": ("--lora.rank", "0"), "nf4": ("--model.quantize", "nf4")}
STATES |= {name: ("--lora.rank", "0", "--optimizer.name", name) for name in ("adafactor", "lion", "muon")}
PLAIN = ("--focus.branches", "1", "--train.sequence_length", "1024", "--model.remat", "none")


@pytest.mark.parametrize("options", STATES.values(), ids=STATES)
def test_bytes_between_steps_are_those_of_the_state(planned, machine, options):
    load, state, mesh = planned(*options, data=2, fsdp=2, tensor=2)
    memory = plan_memory(load, state, mesh, machine)
    assert memory.parameters == on_first_device((state.trainable, state.frozen))
    assert memory.optimizer == on_first_device(state.opt_state)
    assert memory.total == sum(memory)


def test_fsdp_divides_the_state(planned):
    whole = bytes_held(planned("--lora.rank", "0")[1])
    halved = bytes_held(planned("--lora.rank", "0", fsdp=2)[1])
    assert halved == pytest.approx(whole / 2, rel=0.01)  # norms are held whole
    assert bytes_held(planned("--lora.rank", "0", data=2)[1]) == whole


def test_each_optimizer_holds_what_it_should(planned):
    shape = ("--model.width", "128", "--model.vocab_size", "160", "--lora.rank", "0")  # from 128 on Adafactor factors
    _, state, _ = planned(*shape)
    numbers = {name: int(np.prod(leaf.shape)) for name, leaf in named_leaves(state.trainable).items()}
    all_of_them = sum(numbers.values())
    by_muon = sum(n for name, n in numbers.items() if "_proj.kernel" in name)
    rows_and_columns = sum(
        sum(leaf.shape[-2:]) * (leaf.shape[0] if leaf.ndim == 3 else 1)
        for name, leaf in named_leaves(state.trainable).items()
        if name.endswith(("kernel", "embedding"))
    )
    others = sum(n for name, n in numbers.items() if name.endswith("scale"))
    expected = {
        "adamw": 2 * all_of_them,
        "lion": all_of_them,
        "muon": by_muon + 2 * (all_of_them - by_muon),
        "adafactor": rows_and_columns + others,
    }
    for name, count in expected.items():
        held = bytes_held(planned(*shape, "--optimizer.name", name)[1].opt_state)
        few = 4 * 4 * len(numbers)  # counters, and Adafactor's single numbers where it keeps nothing
        assert 4 * count <= held <= 4 * count + few, name


def memory_of(planned, machine, *options, **sizes):
    load, state, mesh = planned("--train.batch_size", "16", *options, **sizes)
    return plan_memory(load, state, mesh, machine)


def test_recomputing_more_keeps_less(planned, machine):
    kept = [memory_of(planned, machine, "--model.remat", remat).activations for remat in ("full", "dots", "none")]
    assert kept == sorted(set(kept))


def test_activations_follow_the_tokens_on_a_device(planned, machine):
    base = memory_of(planned, machine, *PLAIN)
    assert memory_of(planned, machine, *PLAIN, "--train.sequence_length", "2048").activations == 2 * base.activations
    for option, sizes in ((("--train.accumulate", "2"), {}), ((), {"data": 2}), ((), {"context": 2})):
        assert memory_of(planned, machine, *PLAIN, *option, **sizes).activations == base.activations / 2


def test_a_device_has_room_for_the_tokens_of_all_that_send_it_theirs(planned, machine):
    mixture = (*PLAIN, "--model.family", "mixtral", "--model.experts", "8", "--model.remat", "dots")
    alone, apart = (memory_of(planned, machine, *mixture, **{axis: 4}) for axis in ("data", "expert"))
    # Besides what a device makes of its own 4 x 1024 tokens, what experts, two a token, make of three times as many.
    outputs = 128 + 128 + 64
    assert apart.activations - alone.activations == 2 * 4 * 4 * 1024 * 3 * 2 * outputs
    assert apart.parameters < 0.5 * alone.parameters
    stays = (*mixture, "--model.experts", "3")
    alone, stayed = (memory_of(planned, machine, *stays, **{axis: 4}) for axis in ("data", "expert"))
    assert stayed == alone


def test_scores_are_held_where_no_kernel_computes_them(planned, machine):
    fused, plain = (memory_of(planned, machine, *PLAIN, "--model.attention", kind) for kind in ("auto", "xla"))
    scores = 16 * 4 * 1024 * 1024  # rows, heads, tokens of queries and of keys
    assert plain.activations - fused.activations == 2 * scores * (4 + 4 + 4)  # of both scanned layers
    assert plain.temp > fused.temp


def test_layers_that_keep_a_state_hold_no_scores_but_what_their_rule_needs_of_whole_rows(planned, machine):
    shape = ("--model.linear.key_heads", "2", "--model.linear.key_width", "8", "--model.linear.value_width", "10")
    keeping = (*PLAIN, *shape, "--model.linear.value_heads", "4", "--model.linear.layers")
    fused, plain = (memory_of(planned, machine, *keeping, "[0]", "--model.attention", kind) for kind in ("auto", "xla"))
    assert plain.activations - fused.activations == 16 * 4 * 1024 * 1024 * (4 + 4 + 4)  # of the one that attends
    none, both = (memory_of(planned, machine, *options) for options in (PLAIN, (*keeping, "[0, 1]")))
    assert both.activations - fused.activations == fused.activations - none.activations > 4 * 16 * 1024 * 4 * 4 * 32
    halved = memory_of(planned, machine, *keeping, "[0]", context=2)
    assert fused.activations / 2 < halved.activations < fused.activations


def test_accumulation_sums_gradients_in_fp32(planned, machine):
    options = ("--lora.rank", "0", "--model.param_dtype", "bfloat16")
    halved = planned("--train.accumulate", "2", *options)
    whole = planned("--train.batch_size", "4", *options)
    assert microbatch_rows(halved[0], halved[2]) == microbatch_rows(whole[0], whole[2]) == 4
    more = plan_memory(*halved, machine).temp - plan_memory(*whole, machine).temp
    assert more == 4 * sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(halved[1].trainable))


def test_logits_take_memory_by_targets(planned, machine):
    few, many = (memory_of(planned, machine, "--train.targets_per_row", n).temp for n in ("4", "8"))
    assert many - few == 2 * 4 * 16 * 4 * 96  # logits and their gradient of four more targets a row, in fp32


def test_a_divergence_holds_the_logits_of_the_base_too(planned, machine):
    rehearsed = (*PLAIN, "--rehearsal.files", "[a.txt]", "--lora.rank", "2", "--model.vocab_size", "4096")
    load, state, mesh = planned(*rehearsed)
    without, against = (
        plan_memory(replace(load, rehearsal=replace(load.rehearsal, kl=kl)), state, mesh, machine) for kl in (0.0, 1.0)
    )
    logits = 4 * microbatch_rows(load, mesh) * chunks_of(load.sequence_length)[1] * 4096
    assert against.temp - without.temp == logits
    alone = replace(load, rehearsal=replace(load.rehearsal, files=()))
    assert plan_memory(replace(alone, rehearsal=replace(alone.rehearsal, kl=1.0)), state, mesh, machine) == plan_memory(
        alone, state, mesh, machine
    )
