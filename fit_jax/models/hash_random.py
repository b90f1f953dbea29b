"""Random numbers for weights and dropout: a hash of (seed, index of the element).

JAX's own generators either cost more than the layer they disturb (threefry: 20 times this on a CPU, and seconds of
compiling) or depend on how an array is sharded (rbg). A hash of the element's index does neither: it fuses into the
operation that uses it, is the same on every mesh, and is random enough to drop activations or start weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

GOLDEN = np.uint32(0x9E3779B9)


class Seed(NamedTuple):
    """Where a stream of random numbers starts."""

    words: UInt32[Array, "2"]

    @classmethod
    def of(cls, key: Key[Array, ""]) -> "Seed":
        """The seed that stands for a JAX key."""
        return cls(jax.random.bits(key, (2,), jnp.uint32))

    def fold(self, number: int | Array) -> "Seed":
        """An independent stream for each number."""
        number = jnp.asarray(number, jnp.uint32)
        first, second = self.words[0], self.words[1]
        return Seed(jnp.stack([_mix(_mix(number * GOLDEN + first) ^ second), _mix(_mix(number + second) + first)]))

    def bits(self, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
        """32 random bits an element; an array beyond 2³² elements repeats itself."""
        index, stride = jnp.zeros(shape, jnp.uint32), 1
        for axis in reversed(range(len(shape))):
            index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
            stride *= shape[axis]
        return _mix(_mix(index * GOLDEN + self.words[0]) ^ self.words[1])

    def uniform(self, shape: tuple[int, ...], bound: float, dtype: jnp.dtype = jnp.float32) -> Float[Array, "..."]:
        """Uniform in [-bound, bound)."""
        # 24 bits fill a float32's mantissa exactly.
        unit = (self.bits(shape) >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-23) - 1
        return (unit * jnp.float32(bound)).astype(dtype)

    def weights(self, shape: tuple[int, ...], std: float, dtype: jnp.dtype) -> Float[Array, "..."]:
        """Uniform with mean 0 and the given standard deviation."""
        return self.uniform(shape, 3**0.5 * std, dtype)


def folded(seed: Seed | None, number: int | Array) -> Seed | None:
    """`seed.fold(number)`; None, which stands for no dropout, stays None."""
    return None if seed is None else seed.fold(number)


def dropout(x: Float[Array, "..."], rate: float, seed: Seed | None) -> Float[Array, "..."]:
    """Inverted dropout; `x` itself where `seed` is None or the rate is 0."""
    if seed is None or rate == 0.0:
        return x
    keep = seed.bits(x.shape) >= jnp.uint32(round(rate * 2**32))
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A bijection of 32-bit words in which every output bit depends on every input bit (constants: C. Wellons)."""
    x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> jnp.uint32(15))) * jnp.uint32(0x846CA68B)
    return x ^ (x >> jnp.uint32(16))
