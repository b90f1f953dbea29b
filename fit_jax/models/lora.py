"""Linear layers and the low-rank adapters on them, with PEFT's semantics (Hu et al. 2021; DoRA: Liu et al. 2024)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fit_jax.models.config import QUANTIZED_PROJECTIONS, DecoderConfig
from fit_jax.models.hash_random import Seed
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.quantize import QuantizedKernel


class LoraParam(nnx.Param):
    """A parameter of an adapter: `lora_a` (in, R), `lora_b` (R, out) and, for DoRA, `lora_magnitude` (out,)."""


def trainable_filter(lora: LoraConfig) -> type[nnx.Param]:
    """The NNX filter of what is trained: the adapters with LoRA, every parameter without."""
    return LoraParam if lora.rank else nnx.Param


class Linear(nnx.Module):
    """A projection, with a low-rank adapter where `lora` adapts its name.

    The kernel is (in, out). With an adapter, y = x W + s (x' A) B, where x' is x after the adapter's dropout and s is
    PEFT's scaling. With DoRA the columns of W + s A B are rescaled to `lora_magnitude`; their norms carry no gradient.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        outputs: int,
        config: DecoderConfig,
        lora: LoraConfig,
        *,
        bias: bool = False,
        scale: float = 1.0,
        seed: Seed,
    ) -> None:
        """Random kernel with entries of variance `scale`² / inputs; the adapter starts as the identity."""
        dtype = jnp.dtype(config.param_dtype)
        kernel = seed.fold(0).weights((inputs, outputs), scale * inputs**-0.5, dtype)
        if config.quantize != "none" and name in QUANTIZED_PROJECTIONS:
            self.kernel = QuantizedKernel(kernel, config.quantize)
        else:
            self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros((outputs,), dtype)) if bias else None
        self.lora = lora if lora.rank and name in lora.targets else None
        if self.lora is not None:
            # PEFT's start: kaiming-uniform with a = sqrt(5), which is U(-1/sqrt(in), 1/sqrt(in)), and zeros.
            self.lora_a = LoraParam(seed.fold(1).uniform((inputs, lora.rank), inputs**-0.5))
            self.lora_b = LoraParam(jnp.zeros((lora.rank, outputs), jnp.float32))
            if lora.dora:
                self.lora_magnitude = LoraParam(column_norms(self.weight(jnp.float32)))

    def __call__(
        self, x: Float[Array, "*n inputs"], adapter_x: Float[Array, "*n inputs"] | None = None
    ) -> Float[Array, "*n outputs"]:
        """Projects `x`; `adapter_x` is `x` after the adapter's dropout (None: no dropout)."""
        kernel = self.weight(x.dtype)
        y = x @ kernel
        if self.lora is not None:
            dropped = x if adapter_x is None else adapter_x
            update = (dropped @ self.lora_a[...].astype(x.dtype)) @ self.lora_b[...].astype(x.dtype)
            update = update * jnp.asarray(self.lora.scaling, x.dtype)
            if self.lora.dora:
                magnitude = self.lora_magnitude[...] / jax.lax.stop_gradient(column_norms(self.merged_direction()))
                magnitude = _over_rows(magnitude.astype(x.dtype), y)
                base = y if adapter_x is None else adapter_x @ kernel
                update = (magnitude - 1) * base + magnitude * update
            y = y + update
        if self.bias is not None:
            y = y + _over_rows(self.bias[...].astype(y.dtype), y)
        return y

    def weight(self, dtype: DTypeLike) -> Float[Array, "inputs outputs"]:
        """The kernel without the adapter."""
        if isinstance(self.kernel, QuantizedKernel):
            return self.kernel.dequantized(dtype)
        return self.kernel[...].astype(dtype)

    def merged_direction(self) -> Float[Array, "inputs outputs"]:
        """W + s A B in fp32."""
        kernel = self.weight(jnp.float32)
        if self.lora is None:
            return kernel
        return kernel + self.lora.scaling * (self.lora_a[...] @ self.lora_b[...])

    def merged_kernel(self) -> Float[Array, "inputs outputs"]:
        """The kernel, in fp32, of the plain projection that computes what this one does."""
        kernel = self.merged_direction()
        if self.lora is None or not self.lora.dora:
            return kernel
        return kernel * (self.lora_magnitude[...] / column_norms(kernel))[None]


def column_norms(kernel: Float[Array, "inputs outputs"]) -> Float[Array, " outputs"]:
    """The 2-norm of each output's column, in fp32."""
    return jnp.linalg.norm(kernel.astype(jnp.float32), axis=0)


def start_magnitudes(decoder: nnx.Module) -> None:
    """Sets DoRA's magnitudes to the norms of the base kernels, where PEFT starts them; for a new adapter."""
    for _, module in nnx.iter_modules(decoder):
        if isinstance(module, Linear) and hasattr(module, "lora_magnitude"):
            stacked = module.lora_magnitude[...].ndim == 2
            graphdef, state = nnx.split(module)

            def of_layer(state: nnx.State, graphdef: nnx.GraphDef[Linear] = graphdef) -> Float[Array, " outputs"]:
                return column_norms(nnx.merge(graphdef, state).weight(jnp.float32))

            module.lora_magnitude[...] = (jax.vmap(of_layer) if stacked else of_layer)(state)


def _over_rows(vector: Float[Array, " outputs"], like: Float[Array, "*n outputs"]) -> Float[Array, "*n outputs"]:
    return jnp.broadcast_to(jnp.expand_dims(vector, tuple(range(like.ndim - 1))), like.shape)
