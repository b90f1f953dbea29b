"""Rotary position embedding: the angles of tokens in each kind of layer, and the rotation of heads by them."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fit_jax.models.config import DecoderConfig
from fit_jax.models.rope_config import RopeConfig


class Rope(NamedTuple):
    """Cosine and sine of the rotary angles of some tokens, times the config's attention factor; fp32.

    A head's first R dimensions turn. `temperature`, where there is one, is a factor on the tokens' queries.
    """

    cos: Float[Array, "B T R/2"]
    sin: Float[Array, "B T R/2"]
    temperature: Float[Array, "B T"] | None = None


class Ropes(NamedTuple):
    """Rotary angles of some tokens in full and in sliding layers; `sliding` is None where they do not differ."""

    full: Rope
    sliding: Rope | None

    def of(self, slides: bool | Array, rotates: bool | Array = True) -> Rope:
        """The angles of one layer; both flags may be traced."""
        rope = self.full if self.sliding is None else _chosen(slides, self.sliding, self.full)
        still = rope._replace(cos=jnp.ones_like(rope.cos), sin=jnp.zeros_like(rope.sin))
        return _chosen(rotates, rope, still)


def _chosen(flag: bool | Array, yes: Rope, no: Rope) -> Rope:
    if isinstance(flag, bool):
        return yes if flag else no
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes, no)


def ropes_at(positions: Int[Array, "B T"], config: DecoderConfig, lengths: Int[Array, "B T"] | None = None) -> Ropes:
    """Rotary angles of tokens for both kinds of layers.

    Args:
        positions: Of the tokens in their sequences.
        config: The decoder.
        lengths: Tokens of the sequence that each token is of, which `longrope` asks for; None means none is long.
    """
    full = _rope_at(positions, config.rope, config.full_head_width, lengths)
    if config.sliding_theta is None and config.full_head_width == config.head_width:
        return Ropes(full, None)
    sliding = config.rope
    if config.sliding_theta is not None:
        sliding = replace(sliding, kind="default", theta=config.sliding_theta, attention_factor=1.0)
    if config.rope.kind == "proportional":
        sliding = replace(sliding, partial=1.0)
    return Ropes(full, _rope_at(positions, sliding, config.head_width, lengths))


def sequence_lengths(positions: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """Tokens of the longest sequence in the item that each token of whole rows is of; items begin at position 0."""
    items = jnp.cumsum(positions == 0, axis=1, dtype=jnp.int32)
    rows = jnp.broadcast_to(jnp.arange(positions.shape[0], dtype=jnp.int32)[:, None], positions.shape)
    longest = jnp.zeros((positions.shape[0], positions.shape[1] + 1), jnp.int32).at[rows, items].max(positions + 1)
    return jnp.take_along_axis(longest, items, axis=1)


def rotate(x_BTHG: Float[Array, "B T H G"], rope: Rope) -> Float[Array, "B T H G"]:
    """Rotates the first R dimensions of each head by its token's angles.

    Pair i is (x[i], x[i + R/2]), as Hugging Face lays heads out.
    """
    pairs = rope.cos.shape[-1]
    turning = x_BTHG[..., : 2 * pairs].astype(jnp.float32)
    first, second = jnp.split(turning, 2, axis=-1)
    cos, sin = rope.cos[:, :, None], rope.sin[:, :, None]
    parts = [first * cos - second * sin, second * cos + first * sin]
    if 2 * pairs < x_BTHG.shape[-1]:
        parts.append(x_BTHG[..., 2 * pairs :].astype(jnp.float32))
    return jnp.concatenate(parts, axis=-1).astype(x_BTHG.dtype)


def frequencies(config: RopeConfig, head_width: int, *, long: bool = False) -> np.ndarray:
    """Radians per position of each pair that turns, (R/2,) float32, after the config's scaling.

    Args:
        config: The embedding.
        head_width: G.
        long: Those of sequences longer than the original positions, where the config tells them apart (longrope).
    """
    width = config.rotary_width(head_width)
    powers = config.theta ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    inverse = (1.0 / powers).astype(np.float32)
    if config.kind == "linear":
        return inverse / np.float32(config.factor)
    if config.kind == "llama3":
        # Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
        wavelength = 2 * np.pi / inverse
        turns = config.original_max_positions / wavelength
        keep = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
        keep = np.clip(keep, 0.0, 1.0)
        return ((1 - keep) * inverse / config.factor + keep * inverse).astype(np.float32)
    if config.kind == "yarn":
        return (inverse * (1 - _stretched(config, width) * (1 - 1 / config.factor))).astype(np.float32)
    if config.kind == "longrope":
        factors = config.long_factors if long else config.short_factors
        return (1.0 / (np.array(factors, np.float32) * powers)).astype(np.float32)
    if config.kind == "proportional":
        turning = np.arange(width // 2) < int(config.partial * width // 2)
        return np.where(turning, inverse / np.float32(config.factor), np.float32(0))
    return inverse


def _stretched(config: RopeConfig, width: int) -> np.ndarray:
    """How far YaRN stretches each pair, from 0 to 1 (Peng et al. 2023, eq. 22 and 23, by pair and not by turns)."""

    def pair(turns: float) -> float:
        """The pair, with fractions, that turns so often over the original positions."""
        return width * np.log(config.original_max_positions / (turns * 2 * np.pi)) / (2 * np.log(config.theta))

    low, high = pair(config.beta_fast), pair(config.beta_slow)
    if config.truncate:
        low, high = np.floor(low), np.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001
    return np.clip((np.arange(width // 2, dtype=np.float32) - low) / (high - low), 0.0, 1.0)


def _rope_at(
    positions: Int[Array, "B T"], config: RopeConfig, head_width: int, lengths: Int[Array, "B T"] | None
) -> Rope:
    turns = frequencies(config, head_width)[None, None]
    if config.kind == "longrope" and lengths is not None:
        long = (lengths > config.original_max_positions)[:, :, None]
        turns = jnp.where(long, frequencies(config, head_width, long=True)[None, None], turns)
    angles = positions[:, :, None].astype(jnp.float32) * turns
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if config.attention_factor != 1:
        cos, sin = cos * config.attention_factor, sin * config.attention_factor
    temperature = None
    if config.temperature_beta:
        repeats = (positions // config.original_max_positions).astype(jnp.float32)
        temperature = 1 + config.temperature_beta * jnp.log1p(repeats)
    return Rope(cos, sin, temperature)
