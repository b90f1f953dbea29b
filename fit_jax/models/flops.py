"""Floating-point operations of the decoder, from its shapes: every matrix product of forward, backward and remat.

Elementwise work is left out; a multiply and an add are two operations. Attention is counted over whole rows, as the
XLA kernel computes it; a kernel that skips masked blocks does less.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from fit_jax.models.config import DecoderConfig
from fit_jax.models.delta_rule import block_of
from fit_jax.models.head import chunks_of
from fit_jax.models.linear_config import LinearConfig
from fit_jax.models.lora_config import LoraConfig

# What the last layer computes of all tokens and not of the targets alone.
_OF_EVERY_TOKEN = ("k_proj", "v_proj", "in_proj_qkv", "in_proj_b", "in_proj_a", "in_proj_qkvz", "in_proj_ba")


class Flops(NamedTuple):
    """Operations by part; `total` is their sum.

    Attributes:
        projections: The projections of the layers; of those of experts, as many as a token goes to, and the router; and
            those around the layers' own inputs.
        adapters: Low-rank updates on them.
        attention: Scores and weighted values.
        head: The vocabulary projection.
        states: The delta rule of layers that keep a state.
    """

    projections: float
    adapters: float
    attention: float
    head: float
    states: float

    @property
    def total(self) -> float:
        """All operations."""
        return sum(self)


class _Passes(NamedTuple):
    """How often a product of the forward pass is done in a step, its backward products included."""

    projection: Callable[[str], int]
    a: Callable[[str], int]
    b: Callable[[str], int]
    scores: int
    values: int
    head: int
    inputs: int
    rule: int
    rule_gradient: bool


def train_flops(config: DecoderConfig, lora: LoraConfig, rows: int, sequence_length: int, targets: int) -> Flops:
    """Of one optimizer step on a batch of this size, microbatches together.

    With LoRA the frozen projections have no weight gradient. Remat repeats what the backward pass needs of a layer,
    which leaves out the down projection (its output is only added to the residual stream), unless a norm follows it.
    """
    full = config.remat == "full"
    trained = lora.rank == 0
    kept_out = set() if config.post_norms else {"down_proj"}  # outputs that no gradient depends on

    def again(name: str) -> int:
        return int(full and name not in kept_out)

    adapted = set(lora.targets) if lora.rank else set()
    # The attention output is needed again as o_proj's input, to redo the rest of the layer or for weight gradients.
    values_again = full or (config.remat == "dots" and (trained or "o_proj" in adapted))
    passes = _Passes(
        projection=lambda name: 2 + trained + again(name),
        a=lambda name: 3 + full,
        b=lambda name: 3 + again(name),
        scores=3 + (config.remat != "none"),
        values=3 + values_again,
        head=2 + trained + (chunks_of(targets)[0] > 1),
        inputs=1 + 2 * trained,
        rule=1 + (config.remat != "none"),
        rule_gradient=True,
    )
    return _count(config, lora, passes, rows, sequence_length, targets)


def forward_flops(config: DecoderConfig, lora: LoraConfig, rows: int, sequence_length: int, targets: int) -> Flops:
    """Of one forward pass over a batch of this size."""
    once = {name: 1 for name in ("scores", "values", "head", "inputs", "rule")}
    passes = _Passes(projection=lambda _: 1, a=lambda _: 1, b=lambda _: 1, **once, rule_gradient=False)
    return _count(config, lora, passes, rows, sequence_length, targets)


def parameter_count(config: DecoderConfig, lora: LoraConfig = LoraConfig()) -> tuple[int, int]:  # noqa: B008
    """Parameters of projections, embeddings and adapters: (base, adapters); norms and biases are left out."""
    base = _base_count(config, config.copies)
    layers = [config.projection_shapes(config.kind(layer)) for layer in range(config.layers)] if lora.rank else []
    sizes = (config.copies(name) * sum(shapes.get(name, ())) for shapes in layers for name in lora.targets)
    return base, lora.rank * sum(sizes)


def active_parameter_count(config: DecoderConfig) -> int:
    """Parameters of the base that a token goes through: with experts, those of as many as it is sent to."""
    return _base_count(config, config.uses)


def _base_count(config: DecoderConfig, times: Callable[[str], int]) -> int:
    layers = [config.projection_shapes(config.kind(layer)) for layer in range(config.layers)]
    projections = sum(times(name) * i * o for shapes in layers for name, (i, o) in shapes.items())
    # Of each layer: its router, and the gate of a shared expert; its part of the embeddings and of their projection,
    # and its gate and projection.
    words = (config.layer_input_vocab or config.vocab_size) + 3 * config.width
    others = config.width * _scores(config) + words * config.layer_input
    return projections + config.layers * others + config.vocab_size * config.width * (2 - config.tied)


def _scores(config: DecoderConfig) -> int:
    """Numbers that routers make of a token in a layer: one an expert, a shared one's gate included."""
    return config.experts + config.shared_expert


def _count(
    config: DecoderConfig, lora: LoraConfig, passes: _Passes, rows: int, sequence_length: int, targets: int
) -> Flops:
    adapted = set(lora.targets) if lora.rank else set()
    projections = adapters = attention = states = 0.0
    # The last layer reads every token for keys and values, or for its state; the rest is at the targets alone.
    kinds = [*Counter(config.scanned_kinds()).items(), (config.kind(config.layers - 1), 1)]
    for number, (kind, layers) in enumerate(kinds):
        queries = sequence_length if number < len(kinds) - 1 else targets
        for name, (inputs, outputs) in config.projection_shapes(kind).items():
            n = layers * rows * (sequence_length if name in _OF_EVERY_TOKEN else queries)
            projections += passes.projection(name) * 2 * n * config.uses(name) * inputs * outputs
            if name in adapted:
                per_token = passes.a(name) * inputs + passes.b(name) * outputs
                adapters += 2 * n * config.uses(name) * lora.rank * per_token
        projections += passes.projection("router") * 2 * layers * rows * queries * config.width * _scores(config)
        added = 2 * layers * rows * queries * config.width * config.layer_input
        projections += (passes.projection("layer_input") + passes.projection("down_proj")) * added
        pairs = layers * rows * queries * sequence_length * config.heads
        attention += (passes.scores + passes.values) * 2 * pairs * kind.head_width
        if kind.linear:
            scanned = number < len(kinds) - 1
            states += layers * rows * _rule(config.linear, sequence_length, queries, passes, scanned=scanned)
    projections += passes.inputs * 2 * rows * sequence_length * config.width * config.layers * config.layer_input
    computed = math.prod(chunks_of(targets))
    head = passes.head * 2 * rows * computed * config.width * config.vocab_size
    return Flops(projections, adapters, attention, head, states)


def _rule(shape: LinearConfig, tokens: int, queries: int, passes: _Passes, *, scanned: bool) -> float:
    """The delta rule of one layer, the last or one that is scanned, on a row, which is filled up to whole blocks."""
    block, asked = block_of(tokens), block_of(queries)
    T, C = -(-tokens // block) * block, -(-queries // asked) * asked
    keys, values = 2 * shape.key_heads * shape.key_width, 2 * shape.values  # of a pair of tokens
    sums = 2 * T * T * 2 * shape.value_heads
    inverses = 4 * T * block * block * max((block - 1).bit_length() - 1, 0) * shape.value_heads + T * block * keys
    solved = T * T * (keys + values) + T * block * values
    gathered = C * T * (keys + values)
    # The transposed system, whose inverses the last layer still has, and the gradients of both products, for which
    # scores are computed again.
    backward = sums + (inverses if scanned else 0) + solved
    backward += T * T * (3 * keys + values) + C * T * (3 * keys + 2 * values)
    return passes.rule * (sums + inverses + solved + gathered) + passes.rule_gradient * backward
