"""Free decoding on the device: greedy, temperature and nucleus sampling, in batches, with stop tokens."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Int32, Key

from fit_jax.errors import InputError
from fit_jax.models.decoder import Decoder, Params
from fit_jax.models.export import to_host
from fit_jax.models.kv_cache import Cache, empty_cache, extend
from fit_jax.parallel.mesh import mesh_of
from fit_jax.parallel.processes import split_by_rows
from fit_jax.parallel.sharding import row_shards

Prompt = TypeVar("Prompt")
Result = TypeVar("Result")

# Prompts are padded to multiples of this, so that few lengths are compiled.
BUCKET = 32
# While tokens are generated: the number of the next one, those generated, how many of them count, the rows that go on.
_State = tuple[Int32[Array, ""], Int32[Array, "B N"], Int32[Array, " B"], Bool[Array, " B"], Cache]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    Attributes:
        tokens: Most tokens generated.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Draws among the likeliest tokens that together have at least this probability.
        stop: Tokens after which a row ends; the one that came is part of its output.
    """

    tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            InputError: A number is out of its range.
        """
        if self.tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise InputError(
                f"decoding: tokens {self.tokens}, temperature {self.temperature}, top_p {self.top_p}: "
                "take tokens >= 1, temperature >= 0 and 0 < top_p <= 1"
            )


def generate(
    graphdef: nnx.GraphDef,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " n"]],
    sampling: SamplingParams,
    key: Key[Array, ""] | None = None,
) -> list[Int[np.ndarray, " m"]]:
    """Continues each prompt; every prompt's continuation is the same whatever else is in the batch.

    The prompts are split by rows over the mesh that the parameters lie on.

    Args:
        graphdef: The decoder's structure.
        params: Its states, as `nnx.merge(graphdef, *params)` takes them.
        prompts: Token ids, at least one each.
        sampling: How tokens are chosen.
        key: Draws them; needed where the temperature is not 0.

    Returns:
        The new tokens of each prompt, its stop token included.

    Raises:
        InputError: A prompt is empty, or a draw is asked for without a key.
    """
    if sampling.temperature > 0 and key is None:
        raise InputError("decoding: temperature needs a seed; give one, or take temperature 0")
    mesh = mesh_of(params)
    tokens, valid = split_by_rows(padded(whole_rows(prompts, mesh)), mesh)
    with jax.set_mesh(mesh):  # the model's activations are constrained to the mesh in context
        made, count = decode(graphdef, sampling, params, tokens, valid, jax.random.key(0) if key is None else key)
    return [row[:n] for row, n, _ in zip(to_host(made), to_host(count), prompts)]


def generate_all(
    graphdef: nnx.GraphDef,
    params: Params,
    prompts: Sequence[Int[np.ndarray, " n"]],
    sampling: SamplingParams,
    rows: int,
    key: Key[Array, ""] | None = None,
) -> list[Int[np.ndarray, " m"]]:
    """As `generate` for any number of prompts: `rows` at a time, those of like length together."""

    def made(start: int, part: list[np.ndarray]) -> list[np.ndarray]:
        return generate(graphdef, params, part, sampling, None if key is None else jax.random.fold_in(key, start))

    return by_length(prompts, len, rows, made)


def by_length(
    prompts: Sequence[Prompt],
    length: Callable[[Prompt], int],
    rows: int,
    answers: Callable[[int, list[Prompt]], Iterable[Result]],
) -> list[Result]:
    """What `answers(number of the first, prompts)` gives for each prompt, asked for `rows` of like length at a time."""
    order = sorted(range(len(prompts)), key=lambda number: -length(prompts[number]))
    found: dict[int, Result] = {}
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        filled = part + part[-1:] * (rows - len(part))  # one shape for all batches
        found.update(zip(part, answers(start, [prompts[n] for n in filled])))
    return [found[number] for number in range(len(prompts))]


def whole_rows(prompts: Sequence[Prompt], mesh: Mesh) -> list[Prompt]:
    """The prompts, the last one repeated until the mesh divides them."""
    return [*prompts, *[prompts[-1]] * (-len(prompts) % row_shards(mesh))]


def padded(prompts: Sequence[Int[np.ndarray, " n"]]) -> tuple[Int32[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """The prompts as rows of one length, a multiple of `BUCKET`, and which of their tokens are no padding.

    Raises:
        InputError: A prompt is empty.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise InputError("decoding: a prompt is empty; begin with the tokenizer's first token")
    width = -(-max(map(len, prompts)) // BUCKET) * BUCKET
    tokens = np.zeros((len(prompts), width), np.int32)
    valid = np.zeros((len(prompts), width), bool)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        valid[row, : len(prompt)] = True
    return tokens, valid


@partial(jax.jit, static_argnums=(0, 1))
def decode(
    graphdef: nnx.GraphDef,
    sampling: SamplingParams,
    params: Params,
    tokens_BT: Int[Array, "B T"],
    valid_BT: Bool[Array, "B T"],
    key: Key[Array, ""],
) -> tuple[Int[Array, "B N"], Int[Array, " B"]]:
    """Up to N = `sampling.tokens` new tokens of each row, and how many they are.

    Padding, where `valid_BT` is False, may stand on either side.
    """
    decoder: Decoder = nnx.merge(graphdef, *params)
    B, T = tokens_BT.shape
    N = sampling.tokens
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(B))
    stop = jnp.array(sampling.stop, jnp.int32)

    def choose(hidden: Array, number: Array) -> Array:
        logits = decoder.logits(hidden)[:, 0]
        if sampling.temperature == 0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        kept = nucleus(logits / sampling.temperature, sampling.top_p)
        keys = jax.vmap(lambda k: jax.random.fold_in(k, number))(row_keys)
        return jax.vmap(jax.random.categorical)(keys, kept).astype(jnp.int32)

    positions = jnp.maximum(jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1, 0)
    last = jnp.max(jnp.where(valid_BT, jnp.arange(T, dtype=jnp.int32)[None], 0), axis=1, keepdims=True)
    cache = empty_cache(decoder.config, B, T + N - 1)._replace(limits=positions.max(axis=1) + N)
    hidden, cache = extend(decoder, cache, tokens_BT, positions, valid_BT, last)
    first = choose(hidden, jnp.int32(0))
    made = jnp.zeros((B, N), jnp.int32).at[:, 0].set(first)
    going = ~jnp.isin(first, stop)
    length = positions.max(axis=1)

    def more(state: _State) -> Bool[Array, ""]:
        number, _, _, going, _ = state
        return (number < N) & going.any()

    def step(state: _State) -> _State:
        number, made, count, going, cache = state
        here = jax.lax.dynamic_slice_in_dim(made, number - 1, 1, axis=1)
        at = (length + number)[:, None]
        hidden, cache = extend(decoder, cache, here, at, jnp.ones((B, 1), bool), jnp.zeros((B, 1), jnp.int32))
        token = choose(hidden, number)
        made = jax.lax.dynamic_update_slice(made, token[:, None], (0, number))
        return number + 1, made, count + going, going & ~jnp.isin(token, stop), cache

    start = (jnp.int32(1), made, jnp.ones((B,), jnp.int32), going, cache)
    _, made, count, _, _ = jax.lax.while_loop(more, step, start)
    return made, count


def nucleus(logits: Float[Array, "B V"], top_p: float) -> Float[Array, "B V"]:
    """Logits with all but the likeliest tokens, which together reach probability `top_p`, at -inf."""
    if top_p >= 1:
        return logits
    ordered = -jnp.sort(-logits, axis=-1)
    probability = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)
