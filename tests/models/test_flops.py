import math
import re
from dataclasses import replace

import jax
import pytest

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.models.config import DecoderConfig
from fit_jax.models.flops import active_parameter_count, forward_flops, parameter_count, train_flops
from fit_jax.models.linear_config import LinearConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.rope_config import RopeConfig
from fit_jax.parallel.hlo import ARRAY, INSTRUCTION, executed
from fit_jax.parallel.mesh import make_mesh
from fit_jax.training.optimizer import make_optimizer
from fit_jax.training.state import abstract_state
from fit_jax.training.step import abstract_batch, compile_train_step

MODEL = DecoderConfig(layers=3, width=64, feed_forward=176, heads=4, kv_heads=2, vocab_size=96, tied=False)


def compiled(model: DecoderConfig, lora: LoraConfig, rows: int, tokens: int, targets: int) -> jax.stages.Compiled:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(), 10)
    placed = abstract_state(model, lora, optimizer, mesh)
    return compile_train_step(placed.graphdef, optimizer, placed.state, abstract_batch(rows, tokens, targets, mesh))


def dot_flops(text: str) -> float:
    """Floating-point operations of all matrix products of a compiled program, a device."""
    total = 0.0
    shapes = {m[1]: m[2] for line in text.splitlines() if (m := INSTRUCTION.match(line))}
    for times, result, opcode, rest in executed(text):
        if opcode != "dot":
            continue
        contracting = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
        operand = re.match(r"[^%]*%([\w.\-]+)", rest)
        lhs = ARRAY.search(rest.split(",")[0]) or ARRAY.search(shapes[operand[1]])
        sizes = [int(d) for d in lhs[2].split(",") if d]
        contracted = math.prod(sizes[int(d)] for d in contracting[1].split(",") if d)
        output = math.prod(int(d) for d in ARRAY.search(result)[2].split(",") if d)
        total += 2.0 * times * output * contracted
    return total


NORMS = {"pre_norms": False, "post_norms": True, "qk_norm": True, "qk_norm_whole": True}
SCALES = {"residual_multiplier": 0.2, "embed_multiplier": 3.0, "attention_multiplier": 0.1, "logit_divisor": 4.0}
ROPE = {"rope": RopeConfig(partial=0.5, kind="yarn", factor=4.0, temperature_beta=0.1), "nope_layers": (1,)}

GEMMA4 = {
    "layers": 9,
    "window": 16,
    "sliding_layers": (0, 2, 4, 6),
    "full_head_dim": 24,
    "full_kv_heads": 1,
    "keys_as_values": True,
    "sharing_layers": 5,
    "sharing_feed_forward": 352,
    "layer_input": 12,
    "post_norms": True,
}

LINEAR = {
    "layers": 5,
    "linear": LinearConfig(layers=(1, 3, 4), key_heads=2, value_heads=4, key_width=12, value_width=20),
    "output_gate": True,
}


BY_HEAD = {**LINEAR, "linear": replace(LINEAR["linear"], by_head=True)}


# Without norms on inputs, the compiler finds that the last layer's queries, keys and values need not be computed again.
@pytest.mark.parametrize(
    ("switches", "remat", "rank", "tolerance"),
    [
        ({**NORMS, **ROPE}, "full", 4, 0.02),
        ({**SCALES, **ROPE}, "full", 4, 1e-6),
        ({**NORMS, **ROPE}, "dots", 0, 1e-6),
        ({**SCALES, **ROPE}, "none", 0, 1e-6),
        (GEMMA4, "none", 0, 1e-6),
        (GEMMA4, "dots", 4, 0.01),
        (GEMMA4, "full", 4, 0.02),
        (LINEAR, "none", 0, 1e-6),
        (LINEAR, "dots", 4, 0.02),
        (LINEAR, "full", 4, 0.02),
        (BY_HEAD, "none", 0, 1e-6),
        (BY_HEAD, "dots", 4, 0.02),
    ],
)
@pytest.mark.slow
def test_switches_of_later_families_are_counted(switches, remat, rank, tolerance):
    model, lora = replace(MODEL, remat=remat, **switches), LoraConfig(rank=rank)
    program = compiled(model, lora, 4, 128, 8).as_text()
    assert dot_flops(program) == pytest.approx(train_flops(model, lora, 4, 128, 8).total, rel=tolerance)


@pytest.mark.parametrize(
    ("remat", "rank", "targets"),
    [
        ("none", 4, 8),
        ("dots", 0, 8),
        ("full", 0, 80),
        pytest.param("dots", 4, 8, marks=pytest.mark.slow),
        pytest.param("full", 4, 8, marks=pytest.mark.slow),
    ],
)
def test_every_matrix_product_of_the_compiled_step_is_counted(remat, rank, targets):
    model, lora = replace(MODEL, remat=remat), LoraConfig(rank=rank)
    program = compiled(model, lora, 4, 128, targets).as_text()
    assert dot_flops(program) == pytest.approx(train_flops(model, lora, 4, 128, targets).total, rel=1e-6)


def test_the_count_is_that_of_an_unrolled_compile(monkeypatch):
    model = replace(MODEL, width=512, feed_forward=1408, heads=8, kv_heads=4, vocab_size=1000, remat="full")
    rolled = jax.lax.scan
    monkeypatch.setattr(jax.lax, "scan", lambda f, init, xs=None, **kw: rolled(f, init, xs, **{**kw, "unroll": True}))
    counted = compiled(model, LoraConfig(), 4, 128, 8).cost_analysis()["flops"]
    assert train_flops(model, LoraConfig(), 4, 128, 8).total == pytest.approx(counted, rel=0.02)


def test_experts_that_a_token_does_not_go_to_are_stored_and_not_computed():
    model = DecoderConfig(
        layers=48, width=2048, feed_forward=768, heads=32, kv_heads=4, head_dim=128, vocab_size=151936, experts=128
    )
    model = replace(model, experts_per_token=8)
    # What its makers say of Qwen3-30B-A3B: 30.5 billion parameters, of which 3.3 billion are active.
    assert parameter_count(model)[0] == pytest.approx(30.5e9, rel=0.005)
    assert active_parameter_count(model) == pytest.approx(3.3e9, rel=0.02)
    tokens = 4 * 128
    lora = LoraConfig(rank=4, targets=("q_proj", "v_proj"))
    layers = active_parameter_count(model) - 2 * model.vocab_size * model.width
    assert train_flops(model, lora, 4, 128, 8).projections == pytest.approx(4 * layers * tokens, rel=0.05)


def test_layers_of_several_kinds_and_experts_beside_a_layer_are_stored_and_computed():
    each_sixth_full = {"window": 1024, "full_head_dim": 512, "keys_as_values": True, "head_dim": 256, "tied": True}
    dense = DecoderConfig(
        layers=60, width=5376, feed_forward=21504, heads=32, kv_heads=16, full_kv_heads=4, vocab_size=262144,
        sliding_layers=tuple(n for n in range(60) if (n + 1) % 6), **each_sixth_full,
    )  # fmt: skip
    assert parameter_count(dense)[0] == pytest.approx(30.7e9, rel=0.005)
    assert active_parameter_count(dense) == parameter_count(dense)[0]
    lora = LoraConfig(rank=2, targets=("v_proj", "o_proj"))
    of_values, of_outputs = 50 * (5376 + 16 * 256), 50 * (32 * 256 + 5376) + 10 * (32 * 512 + 5376)
    assert parameter_count(dense, lora)[1] == 2 * (of_values + of_outputs)  # full layers have no v_proj
    mixed = DecoderConfig(
        layers=30, width=2816, feed_forward=2112, heads=16, kv_heads=8, full_kv_heads=2, vocab_size=262144,
        sliding_layers=tuple(n for n in range(30) if (n + 1) % 6), experts=128, experts_per_token=8, expert_width=704,
        **each_sixth_full,
    )  # fmt: skip
    assert parameter_count(mixed)[0] == pytest.approx(25.2e9, rel=0.005)
    assert active_parameter_count(mixed) == pytest.approx(3.8e9, rel=0.01)
    layers = active_parameter_count(mixed) - mixed.vocab_size * mixed.width
    assert forward_flops(mixed, LoraConfig(), 4, 128, 128).projections == pytest.approx(2 * layers * 4 * 128)


def test_layers_that_keep_a_state_are_stored_and_computed():
    linear = LinearConfig(layers=tuple(n for n in range(32) if (n + 1) % 4), key_heads=16, value_heads=32)
    model = DecoderConfig(
        layers=32, width=4096, feed_forward=12288, heads=16, kv_heads=4, head_dim=256, vocab_size=248320,
        linear=linear, output_gate=True,
    )  # fmt: skip
    # By its makers a model of 9 billion parameters.
    assert parameter_count(model)[0] == pytest.approx(8.95e9, rel=0.005)
    lora = LoraConfig(rank=2, targets=("q_proj", "in_proj_z"))
    assert parameter_count(model, lora)[1] == 2 * (8 * (4096 + 2 * 16 * 256) + 24 * (4096 + 32 * 128))
    found = forward_flops(model, LoraConfig(), 2, 512, 512)
    base = parameter_count(model)[0] - 2 * model.vocab_size * model.width
    assert found.projections == pytest.approx(2 * base * 2 * 512)
    assert found.attention == 8 * 2 * 4 * 512 * 512 * 16 * 256  # of 8 layers
    # Queries by keys, keys by keys, and twice what is gathered, by heads as wide as 128; and less for the rest.
    assert found.states == pytest.approx(24 * 2 * 512 * 512 * 4 * (16 + 32) * 128, rel=0.25)


@pytest.mark.parametrize("by_head", [False, True])
def test_an_expert_that_all_tokens_share_is_stored_and_computed_for_each(by_head):
    linear = LinearConfig(
        layers=tuple(n for n in range(40) if (n + 1) % 4), key_heads=16, value_heads=32, by_head=by_head
    )
    model = DecoderConfig(
        layers=40, width=2048, feed_forward=512, expert_width=512, experts=256, experts_per_token=8, shared_expert=True,
        heads=16, kv_heads=2, head_dim=256, vocab_size=248320, linear=linear, output_gate=True,
    )  # fmt: skip
    # By its makers Qwen3.5-35B-A3B, of which 3 billion parameters are active; the embeddings of a token are one row.
    assert parameter_count(model)[0] == pytest.approx(34.7e9, rel=0.005)
    layers = active_parameter_count(model) - 2 * model.vocab_size * model.width
    assert layers + model.vocab_size * model.width == pytest.approx(3e9, rel=0.05)
    alone = replace(model, expert_width=None, shared_expert=False)
    shared = 40 * (3 * 2048 * 512 + 2048)  # and its gate
    assert parameter_count(model)[0] - parameter_count(alone)[0] == shared
    assert active_parameter_count(model) - active_parameter_count(alone) == shared
    computed = forward_flops(model, LoraConfig(), 4, 128, 128).projections
    assert computed == pytest.approx(2 * layers * 4 * 128)
    lora = LoraConfig(rank=2, experts=True, targets=("up_proj", "experts.down_proj", "out_proj"))
    of_layers = 2048 + 512 + 256 * (512 + 2048)
    assert parameter_count(model, lora)[1] == 2 * (40 * of_layers + 30 * (4096 + 2048))
    adapted = forward_flops(model, lora, 4, 128, 128).adapters
    assert adapted == 2 * 4 * 128 * 2 * (40 * (2048 + 512 + 8 * (512 + 2048)) + 30 * (4096 + 2048))


def test_rules_of_thumb():
    model = replace(MODEL, layers=40)
    base, adapters = parameter_count(model, LoraConfig(rank=4))
    tokens = 4 * 128
    full = train_flops(model, LoraConfig(), 4, 128, 8).projections
    adapted = train_flops(model, LoraConfig(rank=4), 4, 128, 8).projections
    assert full == pytest.approx(6 * base * tokens, rel=0.05)
    assert adapted == pytest.approx(4 * base * tokens, rel=0.05)
    assert adapters < base
