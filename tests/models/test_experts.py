"""A mixture of experts is a loop over its experts, whatever the router chooses, and its base may be quantised."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.errors import InputError
from fit_jax.models.adapter_config import resolve_lora
from fit_jax.models.config import PROJECTIONS
from fit_jax.models.decoder import Decoder
from fit_jax.models.experts import Experts
from fit_jax.models.flops import parameter_count
from fit_jax.models.hash_random import Seed
from fit_jax.models.lora import LoraParam
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import unlike_family
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import named_leaves

from ..closeness import apart, assert_close

E, K = 5, 2


GPT_OSS = {"experts_bias": True, "activation": "clamped_swiglu", "swiglu_limit": 0.8}


LORA = LoraConfig(rank=3, alpha=6.0, experts=True)
KINDS = {
    "normalized": ({}, LoraConfig()),
    "as it is": ({"normalize_router": False}, LoraConfig()),
    "biased": (GPT_OSS, LoraConfig()),
    "adapted": ({}, LORA),
}


@pytest.fixture(params=KINDS)
def experts(tiny, request) -> Experts:
    switches, lora = KINDS[request.param]
    config = dataclasses.replace(tiny, experts=E, experts_per_token=K, **switches)
    graphdef, state = nnx.split(Experts(config, lora, seed=Seed.of(jax.random.key(0))))
    # Biases and adapters, which begin as zeros, show too.
    return nnx.merge(graphdef, jax.tree.map(lambda a: a + 0.3 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), state))


def added(y, bias):
    return y if bias is None else y + jnp.broadcast_to(bias, y.shape)


def gated(config, gate, up):
    if config.activation == "silu":
        return jax.nn.silu(gate) * up
    gate, up = gate.clip(max=config.swiglu_limit), up.clip(-config.swiglu_limit, config.swiglu_limit)
    return (up + 1) * gate * jax.nn.sigmoid(1.702 * gate)


def looped(experts: Experts, x: jax.Array) -> jax.Array:
    """Each expert on every token, times its weight there, which is 0 where the router did not choose it."""

    def projected(part, x, n):
        y = added(x @ part.kernel[...][n], None if part.bias is None else part.bias[...][n])
        return y if part.lora is None else y + 2.0 * (x @ part.lora_a[...][n]) @ part.lora_b[...][n]

    router = experts.router
    scores = jax.nn.softmax(added(x @ router.kernel[...], None if router.bias is None else router.bias[...]), axis=-1)
    least = jnp.sort(scores, axis=-1)[..., -K, None]
    weights = jnp.where(scores >= least, scores, 0.0)
    if experts.config.normalize_router:
        weights /= weights.sum(axis=-1, keepdims=True)
    inner = [[projected(part, x, n) for part in (experts.gate_proj, experts.up_proj)] for n in range(E)]
    hidden = [gated(experts.config, *pair) for pair in inner]
    return sum(weights[..., n, None] * projected(experts.down_proj, hidden[n], n) for n in range(E))


def test_grouped_products_equal_a_loop_over_the_experts(experts, tiny):
    x = jax.random.normal(jax.random.key(1), (2, 7, tiny.width))
    x = x.at[1].set(x[0, 0])  # tokens that all go to the same experts, so that others get few or none
    graphdef, state = nnx.split(experts)

    def both(function):
        def total(state, x):
            y = function(nnx.merge(graphdef, state), x)
            return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

        return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(state, x)

    ours, theirs = both(lambda experts, x: experts(x)[0]), both(looped)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), ours, theirs)


@pytest.mark.parametrize("shape", [(4, 6), (3, 6), (4, 5)])
def test_rows_and_tokens_that_the_mesh_does_not_divide_are_computed_too(experts, tiny, shape):
    x = jax.random.normal(jax.random.key(1), (*shape, tiny.width))
    graphdef, state = nnx.split(experts)
    run = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x)[0])
    alone = run(state, x)
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=2, tensor=2, context=2))):
        assert_close(run(state, x), alone, 1e-5)


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.01), ("nf4", 0.2)])
def test_each_expert_is_quantised_by_itself(tiny, kind, error):
    config = dataclasses.replace(tiny, experts=E, experts_per_token=K)
    plain, stored = (
        Experts(dataclasses.replace(config, quantize=how), LoraConfig(), seed=Seed.of(jax.random.key(0)))
        for how in ("none", kind)
    )
    for name in ("gate_proj", "up_proj", "down_proj"):
        kernel, found = getattr(plain, name).weight(jnp.float32), getattr(stored, name).weight(jnp.float32)
        assert 0 < apart(found, kernel) < error
        assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(stored.router.kernel[...], plain.router.kernel[...])


def test_merged_kernels_compute_what_experts_and_their_adapters_do(tiny):
    config = dataclasses.replace(tiny, experts=E, experts_per_token=K)
    adapted = Experts(config, LORA, seed=Seed.of(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (2, 7, tiny.width))
    before = adapted(x)[0]
    plain = Experts(config, LoraConfig(), seed=Seed.of(jax.random.key(0)))
    assert_close(before, plain(x)[0], 1e-6)  # adapters begin as the identity, and leave the base as it is
    for part in (adapted.gate_proj, adapted.up_proj, adapted.down_proj):
        part.lora_b[...] = jax.random.normal(jax.random.key(2), part.lora_b.shape)
    for name in ("gate_proj", "up_proj", "down_proj"):
        getattr(plain, name).kernel[...] = getattr(adapted, name).merged_kernel()
    assert apart(adapted(x)[0], before) > 0.1
    assert_close(adapted(x)[0], plain(x)[0], 1e-5)


def test_experts_get_adapters_where_they_are_asked_for(tiny):
    model = dataclasses.replace(tiny, experts=E, family="mixtral")
    assert resolve_lora(LORA, model).targets == PROJECTIONS
    without = dataclasses.replace(LORA, targets=("q_proj", "down_proj"))
    assert resolve_lora(without, model) == without
    decoder = nnx.eval_shape(lambda: Decoder(model, LORA, rngs=nnx.Rngs(0)))
    held = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(decoder, LoraParam)))
    assert parameter_count(model, LORA)[1] == held
    plain = nnx.eval_shape(lambda: Decoder(model, LoraConfig(rank=3), rngs=nnx.Rngs(0)))
    assert not [path for path in named_leaves(nnx.state(plain, LoraParam)) if "mlp" in path]


@pytest.mark.parametrize("switches", [{"family": "gemma4_text"}, {"family": "qwen3_next", "shared_expert": True}])
def test_experts_beside_a_feed_forward_part_get_adapters_of_their_own(tiny, switches):
    model = dataclasses.replace(tiny, experts=E, expert_width=24, **switches)
    own = tuple(f"experts.{name}" for name in PROJECTIONS[4:])
    assert resolve_lora(LoraConfig(rank=3), model).targets == PROJECTIONS
    resolved = resolve_lora(LORA, model)
    assert resolved.targets == (*PROJECTIONS, *own)
    resolved.check()
    assert resolve_lora(resolved, model) == resolved
    alone = dataclasses.replace(LORA, targets=("q_proj", *own[:2]))
    assert resolve_lora(alone, model) == alone
    decoder = nnx.eval_shape(lambda: Decoder(model, resolved, rngs=nnx.Rngs(0)))
    held = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(decoder, LoraParam)))
    assert parameter_count(model, resolved)[1] == held
    with pytest.raises(InputError, match=r"lora.targets: experts.up_proj: no such projection"):
        resolve_lora(LoraConfig(rank=2, targets=("q_proj", "experts.up_proj")), model)


@pytest.mark.parametrize(
    ("asked", "changes", "message"),
    [
        ({}, {"experts": 0}, "the model has no experts"),
        (
            {"dora": True, "experts": False},
            {"family": "qwen3_next", "expert_width": 24, "shared_expert": True},
            "PEFT computes none for down_proj, gate_proj, up_proj of qwen3_next",
        ),
        ({"dora": True}, {}, "computes no lora.dora of experts"),
        ({"rslora": True}, {}, "computes no lora.rslora of experts"),
        ({"targets": ("q_proj", "up_proj")}, {}, "stores gate_proj, up_proj as one tensor in transformers 5; name all"),
        (
            {"targets": ("q_proj",)},
            {},
            "lora.targets names none of their projections, gate_proj, up_proj, down_proj; add",
        ),
        ({"rank": 0}, {}, "there are no adapters without a rank; set lora.rank"),
        (
            {"experts": False, "targets": ("up_proj",)},
            {"family": "gpt_oss"},
            r"choose among q_proj, k_proj, v_proj, o_proj, or set lora\.experts$",
        ),
    ],
)
def test_adapters_that_experts_cannot_have_are_refused(tiny, asked, changes, message):
    model = dataclasses.replace(tiny, **{"experts": E, "family": "mixtral", **changes})
    with pytest.raises(InputError, match=message):
        resolve_lora(dataclasses.replace(LORA, **asked), model)


def test_adapters_are_those_of_attention(tiny):
    model = dataclasses.replace(tiny, experts=E)
    assert resolve_lora(LoraConfig(rank=2), model).targets == PROJECTIONS[:4]
    assert resolve_lora(LoraConfig(rank=2), tiny).targets == PROJECTIONS
    model = dataclasses.replace(model, family="mixtral")
    with pytest.raises(InputError, match=r"experts have no adapters; choose among q_proj, .*, or set lora\.experts"):
        resolve_lora(LoraConfig(rank=2, targets=("up_proj",)), model)


def test_a_family_that_has_no_experts_is_told_before_training(tiny):
    assert unlike_family(tiny) is None
    mixed = dataclasses.replace(tiny, experts=E)
    assert unlike_family(mixed) == f"models of family llama have model.experts 0, not {E}"
    assert unlike_family(dataclasses.replace(mixed, family="mixtral")) is None
    assert "qk_norm" in unlike_family(dataclasses.replace(mixed, family="qwen3_moe"))
    assert "hidden_activation" in unlike_family(dataclasses.replace(tiny, family="gemma2"))


@pytest.mark.parametrize("chosen", [0, E + 1])
def test_a_token_goes_to_one_expert_or_more_and_to_no_more_than_there_are(tiny, chosen):
    with pytest.raises(InputError, match="experts_per_token"):
        dataclasses.replace(tiny, experts=E, experts_per_token=chosen).check()
