"""The feed-forward part as a mixture of experts: a router sends each token to a few of them (Shazeer et al. 2017).

No token is dropped: the tokens of an expert are brought together, however many they are, and multiplied as one group
(MegaBlocks: Gale et al. 2022).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from fit_jax.models.config import DecoderConfig
from fit_jax.models.expert_exchange import Exchange
from fit_jax.models.hash_random import Seed
from fit_jax.models.layers import RMSNorm, gated, normalized
from fit_jax.models.lora import Linear, LoraParam
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.quantize import QuantizedKernel
from fit_jax.parallel.config import CONTEXT, EXPERT, ROWS, TENSOR
from fit_jax.parallel.sharding import experts_apart


class Routing(NamedTuple):
    """Where a router sends tokens.

    Attributes:
        scores: Its softmax over all experts, fp32.
        weights: Of the experts that a token goes to, fp32.
        chosen: Which these are.
    """

    scores: Float[Array, "B T E"]
    weights: Float[Array, "B T k"]
    chosen: Int[Array, "B T k"]


# What an adapter adds to one projection of every expert: A and B of x A B, the scaling within B.
LowRank = tuple[Float[Array, "E inputs R"], Float[Array, "E R outputs"]]


class ExpertLinear(nnx.Module):
    """One projection of every expert: a kernel (E, in, out), quantised as others are, and biases (E, out).

    With `lora.experts` every expert has an adapter of its own on the projections that `lora` adapts, without dropout.
    """

    def __init__(
        self, config: DecoderConfig, lora: LoraConfig, name: str, sizes: tuple[int, int], seed: Seed, scale: float = 1.0
    ) -> None:
        """Random kernels with entries of variance `scale`² / inputs; the adapters start as the identity."""
        inputs, outputs = sizes
        shape, dtype = (config.experts, inputs, outputs), jnp.dtype(config.param_dtype)
        kernel = seed.weights(shape, scale * inputs**-0.5, dtype)
        if config.quantize == "none":
            self.kernel = nnx.Param(kernel)
        else:
            self.kernel = QuantizedKernel(kernel, config.quantize)
        self.bias = nnx.Param(jnp.zeros((config.experts, outputs), dtype)) if config.experts_bias else None
        self.lora = lora if lora.rank and lora.experts and name in lora.targets else None
        if self.lora is not None:
            self.lora_a = LoraParam(seed.fold(1).uniform((config.experts, inputs, lora.rank), inputs**-0.5))
            self.lora_b = LoraParam(jnp.zeros((config.experts, lora.rank, outputs), jnp.float32))

    def adapter(self, dtype: jnp.dtype) -> LowRank | None:
        """The adapters in `dtype`; None where there are none."""
        if self.lora is None:
            return None
        scaling = jnp.asarray(self.lora.scaling, dtype)
        return self.lora_a[...].astype(dtype), self.lora_b[...].astype(dtype) * scaling

    def offsets(self, dtype: jnp.dtype) -> Float[Array, "E outputs"] | None:
        """The biases in `dtype`; None where there are none."""
        return None if self.bias is None else self.bias[...].astype(dtype)

    def weight(self, dtype: jnp.dtype) -> Float[Array, "E inputs outputs"]:
        """The kernels in `dtype`."""
        if isinstance(self.kernel, QuantizedKernel):
            return self.kernel.dequantized(dtype)
        return self.kernel[...].astype(dtype)

    def merged_kernel(self) -> Float[Array, "E inputs outputs"]:
        """The kernels in fp32 that compute what these and their adapters do."""
        kernel, adapter = self.weight(jnp.dtype(jnp.float32)), self.adapter(jnp.dtype(jnp.float32))
        return kernel if adapter is None else kernel + adapter[0] @ adapter[1]


class Experts(nnx.Module):
    """The sum of a token's experts, each down(act(gate(x)) * up(x)), weighted by the router's softmax."""

    def __init__(self, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights; the output projections are scaled down by the depth."""
        D, F = config.width, config.expert_width or config.feed_forward
        self.config = config
        router = ("router", D, config.experts, config, LoraConfig())
        self.router = Linear(*router, bias=config.experts_bias, seed=seed.fold(3))
        gate, up, down = config.expert_projections()
        self.gate_proj = ExpertLinear(config, lora, gate, (D, F), seed.fold(0))
        self.up_proj = ExpertLinear(config, lora, up, (D, F), seed.fold(1))
        self.down_proj = ExpertLinear(config, lora, down, (F, D), seed.fold(2), (2 * config.layers) ** -0.5)

    def __call__(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T D"], Routing]:
        """Transforms normalised inputs."""
        routing = self.routed(x)
        return self.mixed(x, routing.weights, routing.chosen), routing

    def routed(self, x: Float[Array, "B T D"]) -> Routing:
        """The experts that each token goes to."""
        scores = jax.nn.softmax(self.router(x).astype(jnp.float32), axis=-1)
        weights, chosen = jax.lax.top_k(scores, self.config.experts_per_token)
        if self.config.normalize_router:
            weights /= weights.sum(axis=-1, keepdims=True)
        return Routing(scores, weights, chosen)

    def mixed(
        self, x: Float[Array, "B T D"], weights: Float[Array, "B T k"], chosen: Int[Array, "B T k"]
    ) -> Float[Array, "B T D"]:
        """The weighted sum of the chosen experts' outputs."""
        parts = self.gate_proj, self.up_proj, self.down_proj
        kernels, adapters = zip(*((part.weight(x.dtype), part.adapter(x.dtype)) for part in parts))
        offsets = self.gate_proj.offsets(x.dtype), self.up_proj.offsets(x.dtype)
        run = partial(_of_a_shard, self.config)
        mesh = jax.sharding.get_abstract_mesh()
        if not mesh.empty:  # each device sorts its own tokens, so that none travels but to an expert
            split = TENSOR if kernels[0].shape[-1] % mesh.shape[TENSOR] == 0 else None
            held = EXPERT if experts_apart(mesh, self.config.experts) else None
            rows = ROWS if x.shape[0] % math.prod(mesh.shape[axis] for axis in ROWS) == 0 else None
            tokens = P(rows, CONTEXT if x.shape[1] % mesh.shape[CONTEXT] == 0 else None, None)
            inner, outer, whole = P(held, None, split), P(held, split, None), P(held, None, None)
            run = partial(run, over=TENSOR if split else None, apart=held is not None)
            low_rank = (whole, inner), (whole, inner), (outer, whole)
            low_rank = tuple(spec if adapter else None for spec, adapter in zip(low_rank, adapters))
            specs = (tokens, tokens, tokens, (inner, inner, outer), P(held, split), low_rank)
            run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=tokens, check_vma=False)
        weights = weights.astype(x.dtype)
        y, bias = run(x, weights, chosen, kernels, offsets, adapters), self.down_proj.offsets(x.dtype)
        if bias is None:
            return y
        shares_BTE = (jax.nn.one_hot(chosen, self.config.experts, dtype=x.dtype) * weights[..., None]).sum(axis=2)
        return y + shares_BTE @ bias


class ExpertsBeside(nnx.Module):
    """A mixture of experts whose output is added to that of a feed-forward part, each after a norm (Gemma 4 26B-A4B).

    The router reads the residual stream, divided by its root mean square, and scaled entry by entry; what it says of an
    expert is scaled in turn.
    """

    def __init__(self, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights; all scales are 1."""
        D, dtype = config.width, jnp.dtype(config.param_dtype)
        self.config = config
        self.experts = Experts(config, lora, seed=seed)
        self.router_scale = nnx.Param(jnp.ones((D,), dtype))
        self.expert_scale = nnx.Param(jnp.ones((config.experts,), dtype))
        self.dense_out_norm, self.norm, self.out_norm = (RMSNorm(D, config) for _ in range(3))

    def __call__(self, x: Float[Array, "B T D"], dense: Float[Array, "B T D"]) -> tuple[Float[Array, "B T D"], Routing]:
        """Both parts' sum, given the residual stream and what the feed-forward part makes of it."""
        read = normalized(x.astype(jnp.float32), self.config.norm_epsilon).astype(x.dtype)
        read = read * self.router_scale[...].astype(x.dtype)[None, None] * jnp.asarray(x.shape[-1] ** -0.5, x.dtype)
        routing = self.experts.routed(read)
        weights = routing.weights * self.expert_scale[...].astype(routing.weights.dtype)[routing.chosen]
        mixed = self.experts.mixed(self.norm(x), weights, routing.chosen)
        return self.dense_out_norm(dense) + self.out_norm(mixed), routing


class SharedExpert(nnx.Module):
    """A mixture of experts beside a feed-forward part that is one of them, for every token (Qwen 3.5's mixture)."""

    def __init__(self, config: DecoderConfig, lora: LoraConfig, *, seed: Seed) -> None:
        """Random weights."""
        self.experts = Experts(config, lora, seed=seed)
        self.gate = Linear("gate", config.width, 1, config, LoraConfig(), seed=seed.fold(4))

    def __call__(
        self, x: Float[Array, "B T D"], shared: Float[Array, "B T D"]
    ) -> tuple[Float[Array, "B T D"], Routing]:
        """Both parts' sum, given the normalised inputs and what the feed-forward part makes of them."""
        mixed, routing = self.experts(x)
        return jax.nn.sigmoid(self.gate(x)) * shared + mixed, routing


def _of_a_shard(
    config: DecoderConfig,
    x: Float[Array, "B T D"],
    weights: Float[Array, "B T k"],
    chosen: Int[Array, "B T k"],
    kernels: tuple[Float[Array, "E D F"], Float[Array, "E D F"], Float[Array, "E F D"]],
    offsets: tuple[Float[Array, "E F"] | None, Float[Array, "E F"] | None],
    adapters: tuple[LowRank | None, LowRank | None, LowRank | None],
    over: str | None = None,
    apart: bool = False,
) -> Float[Array, "B T D"]:
    """The experts' sum, except for the biases of `down`, for the tokens that a device has.

    Kernels and adapters are those of gate, up and down, biases those of gate and up. A device has a part of the
    experts' width; `over` is the axis over which all parts are summed. Where they are `apart` it has some of the
    experts, to which the tokens of others come.
    """
    B, T, D = x.shape
    k = chosen.shape[-1]
    order = jnp.argsort(chosen.reshape(-1), stable=True)
    sizes, experts = jnp.bincount(chosen.reshape(-1), length=config.experts), chosen.reshape(-1)[order]
    rows = x.reshape(B * T, D)[order // k]
    run = partial(_grouped, config, kernels, offsets, adapters)
    if apart:
        exchange, own = Exchange.of(sizes, rows.shape[0]), kernels[0].shape[0]
        rows, experts = exchange.forth(rows), exchange.experts
        by_expert, sizes = jnp.argsort(experts, stable=True), jnp.bincount(experts, length=own + 1)[:own]
        y = run(rows[by_expert], sizes, experts[by_expert])
        # What a product makes of rows of no expert is left open.
        y = exchange.back(jnp.where((experts < own)[:, None], y[_inverse(by_expert)], 0))
    else:
        y = run(rows, sizes, experts)
    y = (y[_inverse(order)].reshape(B, T, k, D) * weights[..., None]).sum(axis=2)
    return y if over is None else jax.lax.psum(y, over)


def _grouped(
    config: DecoderConfig,
    kernels: tuple[Array, Array, Array],
    offsets: tuple[Array | None, Array | None],
    adapters: tuple[LowRank | None, LowRank | None, LowRank | None],
    rows: Float[Array, "N D"],
    sizes: Int[Array, " E"],
    experts: Int[Array, " N"],
) -> Float[Array, "N D"]:
    """The outputs of rows that are sorted by expert, given how many each has and which one that of a row is."""

    def product(rows: Array, part: int) -> Array:
        y, adapter = jax.lax.ragged_dot(rows, kernels[part], sizes), adapters[part]
        if adapter is None:
            return y
        return y + jax.lax.ragged_dot(jax.lax.ragged_dot(rows, adapter[0], sizes), adapter[1], sizes)

    def inner(part: int) -> Array:
        y, offset = product(rows, part), offsets[part]
        # Rows of no expert, whose products and gradients are anything, get a row of their own.
        return y if offset is None else y + jnp.pad(offset, ((0, 1), (0, 0)))[experts]

    return product(gated(config, inner(0), inner(1)), 2)


def _inverse(order: Int[Array, " N"]) -> Int[Array, " N"]:
    """Where each place of a permutation went."""
    return jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype), unique_indices=True)
