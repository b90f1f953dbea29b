"""Layers that keep a state in place of keys and values: which they are, and their shapes."""

from dataclasses import dataclass

from fit_jax.errors import InputError

# The projections of such layers, and those of layers where one gives all parts of a head (Qwen3-Next).
LINEAR_PROJECTIONS = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj")
LINEAR_PROJECTIONS_BY_HEAD = ("in_proj_qkvz", "in_proj_ba", "out_proj")

# Largest sizes that are believed.
LARGEST_LINEAR = {
    "key_heads": 1 << 16,
    "value_heads": 1 << 16,
    "key_width": 1 << 16,
    "value_width": 1 << 16,
    "conv_width": 1 << 8,
}


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Layers of the gated delta rule (Yang et al. 2025, "Gated Delta Networks"), where others attend."""

    # Indices of these layers; null means none.
    layers: tuple[int, ...] | None = None
    # Heads of queries and of keys.
    key_heads: int = 1
    # Heads of values; neighbours share a head of queries and keys.
    value_heads: int = 1
    # Width of a head of queries or keys.
    key_width: int = 128
    # Width of a head of values.
    value_width: int = 128
    # Tokens of a sequence that the convolution before the rule sees, the token itself included.
    conv_width: int = 4
    # One projection gives the queries, keys, values and gates of each head of keys after those of the head before, and
    # another its steps and decays (Qwen3-Next).
    by_head: bool = False

    @property
    def values(self) -> int:
        """Width of all heads of values."""
        return self.value_heads * self.value_width

    @property
    def mixed(self) -> int:
        """Width of all queries, keys and values, which are convolved together."""
        return 2 * self.key_heads * self.key_width + self.values

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of their projections."""
        return LINEAR_PROJECTIONS_BY_HEAD if self.by_head else LINEAR_PROJECTIONS

    def projection_shapes(self, width: int) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each projection, in a model of this width."""
        outputs = self.mixed, self.values, self.value_heads, self.value_heads
        if self.by_head:
            outputs = self.mixed + self.values, 2 * self.value_heads
        pairs = (*((width, each) for each in outputs), (self.values, width))
        return dict(zip(self.projections, pairs))

    def has(self, layer: int) -> bool:
        """Whether the layer is one of these."""
        return layer in (self.layers or ())

    def check(self) -> None:
        """Raises InputError for shapes that no such layers have."""
        for name, most in LARGEST_LINEAR.items():
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"model.linear.{name}: {getattr(self, name)} is not from 1 to {most}")
        if self.value_heads % self.key_heads:
            raise InputError(
                f"model.linear.value_heads: {self.value_heads} heads do not divide into {self.key_heads} key heads"
            )
