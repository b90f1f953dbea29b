"""Tokens on their way to the devices that hold their experts, and back: an all-to-all over the mesh axis `expert`.

Each device holds some of the experts and some of the tokens. No token is dropped, however unevenly they are spread, so
a device has room for all the tokens of all others; what is sent are those that are meant for it, by a ragged
all-to-all, where the platform has one, and else with padding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fit_jax.models.kernels import platform_of
from fit_jax.parallel.config import EXPERT

# Platforms for which XLA has a ragged all-to-all.
_RAGGED = ("tpu", "gpu", "cuda")


class Exchange(NamedTuple):
    """Who sends how many rows to whom, as one of P devices sees it, within a shard of a `shard_map` over `expert`.

    Attributes:
        sent: The rows that this device sends to each.
        got: The rows that it gets from each.
        theirs: In each one's rows, the first that comes here.
        experts: The expert, among its own, of each row that it gets; the number of its experts in place of rows that
            nobody sent. Those of one sender lie N apart.
    """

    sent: Int[Array, " P"]
    got: Int[Array, " P"]
    theirs: Int[Array, " P"]
    experts: Int[Array, " PN"]

    @classmethod
    def of(cls, sizes: Int[Array, " E"], rows: int) -> "Exchange":
        """The exchange of this device's `rows` rows, sorted by expert, of which `sizes` go to each."""
        devices, me = jax.lax.axis_size(EXPERT), jax.lax.axis_index(EXPERT)
        everyones = jax.lax.all_gather(sizes, EXPERT).reshape(devices, devices, -1)  # from, to, expert there
        to_each = everyones.sum(axis=2)
        before = jnp.cumsum(to_each, axis=1) - to_each
        ends = jnp.cumsum(everyones[:, me], axis=1)
        experts = (jnp.arange(rows, dtype=ends.dtype)[None, :, None] >= ends[:, None]).sum(axis=2)
        return cls(to_each[me], to_each[:, me], before[:, me], experts.reshape(-1))

    def forth(self, rows: Float[Array, "N D"]) -> Float[Array, "PN D"]:
        """The rows that others, and this device, have for its experts; zeros in place of those that nobody sent."""
        N, devices, starts = rows.shape[0], self.sent.size, jnp.cumsum(self.sent) - self.sent
        if _is_ragged():
            room = jnp.zeros((devices * N, rows.shape[1]), rows.dtype)
            here = jnp.full((devices,), N, jnp.int32) * jax.lax.axis_index(EXPERT)
            return jax.lax.ragged_all_to_all(rows, room, starts, self.sent, here, self.got, axis_name=EXPERT)
        at = starts[:, None] + jnp.arange(N)[None]
        meant = (jnp.arange(N)[None] < self.sent[:, None])[..., None]
        padded = jnp.where(meant, rows[jnp.minimum(at, N - 1)], 0)
        return jax.lax.all_to_all(padded, EXPERT, 0, 0).reshape(devices * N, -1)

    def back(self, rows: Float[Array, "PN D"]) -> Float[Array, "N D"]:
        """What became of this device's rows, in their order, given what this one made of those that it got."""
        devices, starts = self.sent.size, jnp.cumsum(self.sent) - self.sent
        N = rows.shape[0] // devices
        if _is_ragged():
            room = jnp.zeros((N, rows.shape[1]), rows.dtype)
            here = jnp.arange(devices, dtype=jnp.int32) * N
            return jax.lax.ragged_all_to_all(rows, room, here, self.got, self.theirs, self.sent, axis_name=EXPERT)
        padded = jax.lax.all_to_all(rows.reshape(devices, N, -1), EXPERT, 0, 0)
        went_to = (jnp.arange(N)[:, None] >= jnp.cumsum(self.sent)[None]).sum(axis=1)
        return padded[went_to, jnp.arange(N) - starts[went_to]]


def _is_ragged() -> bool:
    return platform_of(jax.sharding.get_abstract_mesh()) in _RAGGED
