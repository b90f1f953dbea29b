"""Tokens on their way to experts on other devices, by either of the two exchanges."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from fit_jax.models.experts import Experts
from fit_jax.models.hash_random import Seed
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.config import EXPERT, MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree, named_leaves

from ..closeness import assert_close

E = 8


@pytest.fixture
def ragged(monkeypatch):
    """JAX's ragged all-to-all as its documentation has it, which XLA lacks on CPUs; its calls are counted."""
    calls = []

    def exchange(operand, output, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name):
        calls.append(operand.shape)
        me = jax.lax.axis_index(axis_name)
        gathered = (operand, input_offsets, send_sizes, output_offsets)
        rows, starts, sizes, places = (jax.lax.all_gather(each, axis_name) for each in gathered)
        at = jnp.arange(output.shape[0])
        for sender in range(rows.shape[0]):
            start, size, place = (each[sender, me] for each in (starts, sizes, places))
            here = (at >= place) & (at < place + size)
            sent = rows[sender][jnp.clip(start + at - place, 0, operand.shape[0] - 1)]
            # What a device expects to get and what it is sent must agree, or it waits for ever.
            sent = jnp.where(recv_sizes[sender] == size, sent, jnp.nan)
            output = jnp.where(here[:, None], sent, output)
        return output

    monkeypatch.setattr(jax.lax, "ragged_all_to_all", exchange)
    monkeypatch.setattr("fit_jax.models.expert_exchange.platform_of", lambda mesh: "tpu")
    return calls


def experts(tiny, x: jax.Array, skewed: bool):
    """The gradients and the outputs of a mixture; where it is skewed all tokens go to the first experts."""
    config = dataclasses.replace(tiny, experts=E, experts_per_token=2, experts_bias=True)
    graphdef, state = nnx.split(Experts(config, LoraConfig(), seed=Seed.of(jax.random.key(0))))
    if skewed:
        state.router.bias[...] = jnp.where(jnp.arange(E) < 2, 50.0, 0.0)

    def total(state, x):
        y = nnx.merge(graphdef, state)(x)[0]
        return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

    return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(state, x)


@pytest.mark.parametrize("exchange", ["padded", "ragged"])
@pytest.mark.parametrize("skewed", [False, True])
def test_experts_on_other_devices_compute_what_they_do_here(tiny, request, exchange, skewed):
    calls = request.getfixturevalue("ragged") if exchange == "ragged" else None
    x = jax.random.normal(jax.random.key(1), (8, 6, tiny.width))
    alone = experts(tiny, x, skewed)
    assert not calls
    with jax.set_mesh(make_mesh(MeshConfig(data=1, tensor=2, expert=4))):
        apart = experts(tiny, x, skewed)
    assert calls is None or calls[:2] == [(24, tiny.width), (96, tiny.width)]  # 2 rows of 6 tokens, twice each
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), apart, alone)


@pytest.fixture
def open_ended(monkeypatch):
    """Grouped products that leave rows of no group open, as a platform may: they are NaN, forward and backward."""
    product = jax.lax.ragged_dot

    def rows(x, sizes, instead):
        return jnp.where((jnp.arange(x.shape[0]) < sizes.sum())[:, None], x, instead)

    @jax.custom_vjp
    def opened(x, kernels, sizes):
        return rows(product(x, kernels, sizes), sizes, jnp.nan)

    def forward(x, kernels, sizes):
        return opened(x, kernels, sizes), (x, kernels, sizes)

    def backward(kept, dy):
        x, kernels, sizes = kept
        _, back = jax.vjp(lambda x, kernels: product(x, kernels, sizes), rows(x, sizes, 0), kernels)
        dx, dkernels = back(rows(dy, sizes, 0))
        return rows(dx, sizes, jnp.nan), dkernels, None

    opened.defvjp(forward, backward)
    return lambda: monkeypatch.setattr(jax.lax, "ragged_dot", opened)


def test_rows_of_no_expert_change_nothing_whatever_is_made_of_them(tiny, open_ended):
    x = jax.random.normal(jax.random.key(1), (8, 6, tiny.width))
    alone = experts(tiny, x, False)
    open_ended()
    with jax.set_mesh(make_mesh(MeshConfig(data=1, expert=8))):
        apart = experts(tiny, x, False)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), apart, alone)


def test_rows_that_the_mesh_does_not_divide_go_to_experts_too(tiny):
    x = jax.random.normal(jax.random.key(1), (3, 5, tiny.width))
    alone = experts(tiny, x, False)
    with jax.set_mesh(make_mesh(MeshConfig(data=1, context=2, expert=4))):
        apart = experts(tiny, x, False)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), apart, alone)


def test_a_device_holds_its_experts_alone(tiny):
    config = dataclasses.replace(tiny, experts=E)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, expert=4))
    state = nnx.state(Experts(config, LoraConfig(rank=2, experts=True), seed=Seed.of(jax.random.key(0))))
    found = {
        name: leaf.spec
        for name, leaf in named_leaves(lay_out_tree({"last_block": {"mlp": state}}, mesh).shardings).items()
    }
    split = {name.removeprefix("last_block.mlp.") for name, spec in found.items() if EXPERT in spec}
    kinds = ("kernel", "lora_a", "lora_b")
    assert split == {f"{part}_proj.{kind}" for part in ("gate", "up", "down") for kind in kinds}
    assert all(spec[0] == EXPERT for name, spec in found.items() if "_proj" in name)
    layout = lay_out_tree({"last_block": {"mlp": state}}, make_mesh(MeshConfig(data=1, expert=8)))
    assert not layout.replicated
    three = nnx.state(Experts(dataclasses.replace(config, experts=3), LoraConfig(), seed=Seed.of(jax.random.key(0))))
    notes = lay_out_tree({"last_block": {"mlp": three}}, mesh).replicated
    assert any("3 is not divisible by expert 4" in note for note in notes)
    assert len(notes) == 3
