"""The feed-forward part as a mixture of experts: a router sends each token to a few of them (Shazeer et al. 2017).

No token is dropped: the tokens of an expert are brought together, however many they are, and multiplied as one group
(MegaBlocks: Gale et al. 2022).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from fit_jax.models.config import DecoderConfig
from fit_jax.models.hash_random import Seed
from fit_jax.models.layers import RMSNorm, gated, normalized
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.quantize import QuantizedKernel
from fit_jax.parallel.config import CONTEXT, ROWS, TENSOR


class ExpertLinear(nnx.Module):
    """One projection of every expert: a kernel (E, in, out), quantised as others are, and biases (E, out)."""

    def __init__(self, inputs: int, outputs: int, config: DecoderConfig, *, scale: float = 1.0, seed: Seed) -> None:
        """Random kernels with entries of variance `scale`² / inputs."""
        shape, dtype = (config.experts, inputs, outputs), jnp.dtype(config.param_dtype)
        kernel = seed.weights(shape, scale * inputs**-0.5, dtype)
        if config.quantize == "none":
            self.kernel = nnx.Param(kernel)
        else:
            self.kernel = QuantizedKernel(kernel, config.quantize)
        self.bias = nnx.Param(jnp.zeros((config.experts, outputs), dtype)) if config.experts_bias else None

    def offsets(self, dtype: jnp.dtype) -> Float[Array, "E outputs"] | None:
        """The biases in `dtype`; None where there are none."""
        return None if self.bias is None else self.bias[...].astype(dtype)

    def weight(self, dtype: jnp.dtype) -> Float[Array, "E inputs outputs"]:
        """The kernels in `dtype`."""
        if isinstance(self.kernel, QuantizedKernel):
            return self.kernel.dequantized(dtype)
        return self.kernel[...].astype(dtype)

    def merged_kernel(self) -> Float[Array, "E inputs outputs"]:
        """The kernels in fp32; experts have no adapters."""
        return self.weight(jnp.dtype(jnp.float32))


class Experts(nnx.Module):
    """The sum of a token's experts, each down(act(gate(x)) * up(x)), weighted by the router's softmax."""

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random weights; the output projections are scaled down by the depth."""
        D, F = config.width, config.expert_width or config.feed_forward
        self.config = config
        router = ("router", D, config.experts, config, LoraConfig())
        self.router = Linear(*router, bias=config.experts_bias, seed=seed.fold(3))
        self.gate_proj = ExpertLinear(D, F, config, seed=seed.fold(0))
        self.up_proj = ExpertLinear(D, F, config, seed=seed.fold(1))
        self.down_proj = ExpertLinear(F, D, config, scale=(2 * config.layers) ** -0.5, seed=seed.fold(2))

    def __call__(
        self, x: Float[Array, "B T D"], input_seed: Seed | None, hidden_seed: Seed | None
    ) -> Float[Array, "B T D"]:
        """Transforms normalised inputs; the seeds, which draw an adapter's dropout, have none here to draw for."""
        return self.mixed(x, *self.routed(x))

    def routed(self, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T k"], Int[Array, "B T k"]]:
        """The experts that each token goes to, and their weights in fp32."""
        scores = jax.nn.softmax(self.router(x).astype(jnp.float32), axis=-1)
        weights, chosen = jax.lax.top_k(scores, self.config.experts_per_token)
        if self.config.normalize_router:
            weights /= weights.sum(axis=-1, keepdims=True)
        return weights, chosen

    def mixed(
        self, x: Float[Array, "B T D"], weights: Float[Array, "B T k"], chosen: Int[Array, "B T k"]
    ) -> Float[Array, "B T D"]:
        """The weighted sum of the chosen experts' outputs."""
        gate, up, down = (part.weight(x.dtype) for part in (self.gate_proj, self.up_proj, self.down_proj))
        offsets = self.gate_proj.offsets(x.dtype), self.up_proj.offsets(x.dtype)
        run = partial(_of_a_shard, self.config)
        mesh = jax.sharding.get_abstract_mesh()
        if not mesh.empty:  # each device sorts its own tokens, so that none travels
            split = TENSOR if gate.shape[-1] % mesh.shape[TENSOR] == 0 else None
            rows = ROWS if x.shape[0] % math.prod(mesh.shape[axis] for axis in ROWS) == 0 else None
            tokens = P(rows, CONTEXT if x.shape[1] % mesh.shape[CONTEXT] == 0 else None, None)
            inner, outer = P(None, None, split), P(None, split, None)
            run = partial(run, over=TENSOR if split else None)
            specs = (tokens, tokens, tokens, inner, inner, outer, P(None, split))
            run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=tokens, check_vma=False)
        weights = weights.astype(x.dtype)
        y, bias = run(x, weights, chosen, gate, up, down, offsets), self.down_proj.offsets(x.dtype)
        if bias is None:
            return y
        shares_BTE = (jax.nn.one_hot(chosen, self.config.experts, dtype=x.dtype) * weights[..., None]).sum(axis=2)
        return y + shares_BTE @ bias


class ExpertsBeside(nnx.Module):
    """A mixture of experts whose output is added to that of a feed-forward part, each after a norm (Gemma 4 26B-A4B).

    The router reads the residual stream, divided by its root mean square, and scaled entry by entry; what it says of an
    expert is scaled in turn.
    """

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random weights; all scales are 1."""
        D, dtype = config.width, jnp.dtype(config.param_dtype)
        self.config = config
        self.experts = Experts(config, seed=seed)
        self.router_scale = nnx.Param(jnp.ones((D,), dtype))
        self.expert_scale = nnx.Param(jnp.ones((config.experts,), dtype))
        self.dense_out_norm, self.norm, self.out_norm = (RMSNorm(D, config) for _ in range(3))

    def __call__(self, x: Float[Array, "B T D"], dense: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Both parts' sum, given the residual stream and what the feed-forward part makes of it."""
        read = normalized(x.astype(jnp.float32), self.config.norm_epsilon).astype(x.dtype)
        read = read * self.router_scale[...].astype(x.dtype)[None, None] * jnp.asarray(x.shape[-1] ** -0.5, x.dtype)
        weights, chosen = self.experts.routed(read)
        weights = weights * self.expert_scale[...].astype(weights.dtype)[chosen]
        return self.dense_out_norm(dense) + self.out_norm(self.experts.mixed(self.norm(x), weights, chosen))


def _of_a_shard(
    config: DecoderConfig,
    x: Float[Array, "B T D"],
    weights: Float[Array, "B T k"],
    chosen: Int[Array, "B T k"],
    gate: Float[Array, "E D F"],
    up: Float[Array, "E D F"],
    down: Float[Array, "E F D"],
    offsets: tuple[Float[Array, "E F"] | None, Float[Array, "E F"] | None],
    over: str | None = None,
) -> Float[Array, "B T D"]:
    """The experts' sum, except for the biases of `down`, for the tokens that a device has.

    It has a part of the experts' width; `over` is the axis over which all parts are summed.
    """
    B, T, D = x.shape
    k = chosen.shape[-1]
    order = jnp.argsort(chosen.reshape(-1), stable=True)
    sizes = jnp.bincount(chosen.reshape(-1), length=gate.shape[0])
    rows = x.reshape(B * T, D)[order // k]

    def inner(kernels: Array, offsets: Array | None) -> Array:
        y = jax.lax.ragged_dot(rows, kernels, sizes)
        return y if offsets is None else y + offsets[chosen.reshape(-1)[order]]

    hidden = gated(config, inner(gate, offsets[0]), inner(up, offsets[1]))
    y = jax.lax.ragged_dot(hidden, down, sizes)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype), unique_indices=True)
    y = (y[back].reshape(B, T, k, D) * weights[..., None]).sum(axis=2)
    return y if over is None else jax.lax.psum(y, over)
