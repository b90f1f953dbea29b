"""The decoder: one architecture whose switches (`DecoderConfig`) cover the families it can be loaded from.

All layers but the last are stacked blocks under `jax.lax.scan`: one stack, or where layers differ in their shapes one
for each kind that takes turns with others (`layer_kinds`). The last is apart: its queries, attention output and
feed-forward layer run only at the positions whose hidden state is asked for, since focus tuning puts loss on a few
tokens of a row.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from fit_jax.models.attention import Scope, take
from fit_jax.models.block import Block, LayerHook
from fit_jax.models.config import DecoderConfig
from fit_jax.models.hash_random import Seed, dropout, folded
from fit_jax.models.layer_inputs import LayerInputs
from fit_jax.models.layer_kinds import Stack, all_stacks, layer_groups
from fit_jax.models.layers import RMSNorm, scaled
from fit_jax.models.lora import Linear
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.partition import by_rows
from fit_jax.models.rope import Ropes, ropes_at, sequence_lengths
from fit_jax.models.token_paths import paths_of

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Hook = TypeVar("Hook", bound=LayerHook)
# A decoder's states, as `nnx.merge(graphdef, *params)` takes them.
Params = tuple[nnx.State, ...]

# Keys and values.
_KeysValues = tuple[Array, Array]

# A window that limits nothing, for the full layers of a model whose layers alternate; fits an int32 difference.
UNLIMITED = 2**30


class Embed(nnx.Module):
    """Token embeddings, (V, D)."""

    def __init__(self, config: DecoderConfig, *, seed: Seed) -> None:
        """Random embeddings; where the output shares them, of the scale that suits it."""
        # Adam moves a weight by about the learning rate: embeddings much larger than that learn new words slowly.
        std = 0.02 if config.tied else 0.2
        shape = (config.vocab_size, config.width)
        self.embedding = nnx.Param(seed.weights(shape, std, jnp.dtype(config.param_dtype)))


class Decoder(nnx.Module):
    """Decoder-only transformer.

    Parameters: embed, [layer_inputs], blocks (stacked; where there are more stacks blocks_1 and so on), last_block,
    final_norm, [lm_head].
    """

    def __init__(self, config: DecoderConfig, lora: LoraConfig = LoraConfig(), *, rngs: nnx.Rngs) -> None:  # noqa: B008
        """Random weights."""
        self.config = config
        seed, L = Seed.of(rngs.params()), config.layers
        self.embed = Embed(config, seed=seed.fold(L))
        self.layer_inputs = LayerInputs(config, seed=seed.fold(L + 2)) if config.layer_input else None
        stacks = all_stacks(config.scanned_kinds())
        for name in stacks or ("blocks",):
            setattr(self, name, _stacked(stacks[name], config, lora, seed) if stacks else None)
        self.last_block = Block(config.kind(L - 1), config, lora, seed=seed.fold(L - 1))
        self.final_norm = RMSNorm(config.width, config)
        if config.tied:
            self.lm_head = None
        else:
            head = ("lm_head", config.width, config.vocab_size)
            self.lm_head = Linear(*head, config, LoraConfig(), seed=seed.fold(L + 1))

    def __call__(
        self,
        tokens_BT: Int[Array, "B T"],
        positions_BT: Int[Array, "B T"],
        visible_until_BT: Int[Array, "B T"],
        out_index_BC: Int[Array, "B C"] | None = None,
        *,
        deterministic: bool = True,
        dropout_key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B C D"]:
        """Hidden states after the final norm.

        Args:
            tokens_BT: Token ids; several sequences may share a row.
            positions_BT: Position of each token in its own sequence.
            visible_until_BT: Token i sees token j iff j <= i < visible_until[j]; 0 for padding.
            out_index_BC: Row indices of the tokens wanted; None means all T. The last layer runs at these alone.
            deterministic: No dropout.
            dropout_key: Draws the dropout; needed unless `deterministic`.

        Raises:
            ValueError: Neither `deterministic` nor a `dropout_key`.
        """
        if not deterministic and dropout_key is None:
            raise ValueError("dropout needs a dropout_key unless deterministic")
        seed = None if dropout_key is None or deterministic else Seed.of(dropout_key)
        scope = Scope.of_rows(positions_BT, visible_until_BT)
        return self.walk(tokens_BT, scope, LayerHook(), out_index_BC, seed)[0]

    def walk(
        self,
        tokens_BT: Int[Array, "B T"],
        scope: Scope,
        hook: Hook,
        out_index_BC: Int[Array, "B C"] | None = None,
        seed: Seed | None = None,
    ) -> tuple[Float[Array, "B C D"], Hook]:
        """From tokens through all layers: the one forward pass, which training, cache and interventions share.

        Args:
            tokens_BT: Token ids.
            scope: What each of these tokens sees, and at which position it stands.
            hook: Takes part in each layer.
            out_index_BC: Which of the T tokens are wanted; None means all. The last layer runs at these alone.
            seed: Draws the dropout; None means none.

        Returns:
            Hidden states after the final norm, and the hook that the last layer handed on.
        """
        ropes, last = self.ropes(scope.query_positions, scope.lengths), self.config.layers - 1

        linear = self.config.linear
        paths = paths_of(scope, linear.conv_width - 1) if linear.layers else None
        reused: dict[bool | None, _KeysValues] = {}  # of layers that slide, and of those that do not

        def visit(
            block: Block,
            x: Array,
            hook: Hook,
            number: int | Array,
            layers: tuple[int, ...],
            given: Array | None,
            index_BC: Array | None = None,
        ) -> tuple[Array, Hook, _KeysValues | None]:
            """The layer `number`, one of `layers`, which may be traced where these are several."""
            slides, layer_seed = self._flag(self.config.slides, number, layers), folded(seed, number)
            rope, queries = ropes.of(slides, self._flag(self.config.rotates, number, layers)), scope
            normed, rule = block.read(x, layer_seed), block.linear_attention
            y: Array | None = None
            held: _KeysValues | None = None
            if rule is not None:
                hook, y = hook.carried(number, partial(rule, *normed, paths, index_BC))
            elif block.kind.reuses_kv:
                held = reused[block.kind.slides]
            elif block.attention is not None:
                hook, k, v = hook.keys_values(number, *block.attention.keys_values(*normed, rope))
                held = k, v
            if index_BC is not None:
                x, normed, rope, given = jax.tree.map(lambda a: take(a, index_BC), (x, normed, rope, given))
                queries = scope.at(index_BC)
            routing = None
            if rule is not None and y is not None:
                x, routing = block.finish(x, y, rule.out_proj, layer_seed, given)
            elif held is not None:
                rescope, window = partial(hook.scope, number), self.window(slides)
                x, routing = block.write(x, normed, *held, queries, rope, window, layer_seed, rescope, given)
            hook = hook if routing is None else hook.routed(number, routing, index_BC)
            hook, x = hook.output(number, x, index_BC)
            return x, hook, held

        def through(
            stack: Stack, carry: tuple[Array, Hook], each: tuple[nnx.State, Array, Array | None]
        ) -> tuple[tuple[Array, Hook], _KeysValues | None]:
            """Layers of a stack in a row: their weights, numbers and inputs; the keys and values that are reused."""
            graphdef = nnx.graphdef(self.stack(stack.name))
            # One layer between others is no loop, whatever scans it.
            in_scan = len(stack.layers) > 1 or self.config.layers == 2

            @partial(self._remat, in_scan=in_scan)
            def scanned(
                carry: tuple[Array, Hook], layer: tuple[nnx.State, Array, Array | None]
            ) -> tuple[tuple[Array, Hook], _KeysValues | None]:
                weights, number, given = layer
                with jax.named_scope("block"):
                    x, hook, held = visit(nnx.merge(graphdef, weights), *carry, number, stack.layers, given)
                    return (by_rows(x), hook), held if stack.kind.kv_reused else None

            return jax.lax.scan(scanned, carry, each)

        embedded = hook.embedded(by_rows(self.embed_tokens(tokens_BT)))
        inputs_LBTP = None if self.layer_inputs is None else self.layer_inputs(tokens_BT, embedded)
        carry = dropout(embedded, self.config.dropout, folded(seed, self.config.layers)), hook
        for stacks, repeats in layer_groups(self.config.scanned_kinds()):
            each = tuple(self._each_layer(stack, inputs_LBTP) for stack in stacks)
            if len(stacks) == 1:
                carry, held = through(stacks[0], carry, each[0])
                if held is not None:
                    reused[stacks[0].kind.slides] = jax.tree.map(lambda a: a[0], held)
                continue

            def turn(carry: tuple[Array, Hook], each: Any, stacks: tuple[Stack, ...] = stacks) -> Any:
                for stack, layers in zip(stacks, each):
                    carry, _ = through(stack, carry, layers)
                return carry, None

            apart = jax.tree.map(lambda a, n=repeats: a.reshape(n, -1, *a.shape[1:]), each)
            carry, _ = jax.lax.scan(turn, carry, apart)

        @self._remat
        def last_layer(x: Array, hook: Hook) -> tuple[Array, Hook]:
            with jax.named_scope("last_block"):
                given = None if inputs_LBTP is None else inputs_LBTP[last]
                return visit(self.last_block, x, hook, last, (last,), given, out_index_BC)[:2]

        x, hook = last_layer(*carry)
        return self.final_norm(x), hook

    def stack(self, name: str) -> Block:
        """The stacked block of this name."""
        return getattr(self, name)

    def _each_layer(self, stack: Stack, inputs_LBTP: Array | None) -> tuple[nnx.State, Array, Array | None]:
        """What a scan over a stack takes of each layer: its weights, its number and its inputs, where it has some."""
        inputs = None if inputs_LBTP is None else _of_layers(inputs_LBTP, stack.layers)
        numbers = _of_layers(jnp.arange(self.config.layers - 1, dtype=jnp.int32), stack.layers)
        return nnx.state(self.stack(stack.name)), numbers, inputs

    def _remat(self, function: Callable[Arguments, Result], in_scan: bool = False) -> Callable[Arguments, Result]:
        """The function, of which a backward pass, where there is one, computes again what `config.remat` says."""
        if self.config.remat == "none":
            return function
        save = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if self.config.remat == "dots" else None
        # Inside a scan, forward and backward are different loops, which the compiler cannot merge into one anyway.
        return jax.checkpoint(function, policy=save, prevent_cse=not in_scan)

    def embed_tokens(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeddings in the compute dtype, scaled where the family does."""
        x = self.embed.embedding[...][tokens].astype(jnp.dtype(self.config.compute_dtype))
        x = x * jnp.asarray(self.config.width**0.5, x.dtype) if self.config.embed_scale else x
        return scaled(x, self.config.embed_multiplier)

    def ropes(self, positions: Int[Array, "B T"], lengths: Int[Array, "B T"] | None = None) -> Ropes:
        """Rotary angles of tokens at these positions, for both kinds of layers.

        Args:
            positions: Of the tokens in their sequences.
            lengths: Tokens that each one's sequence may come to hold; None means that the tokens are whole rows.
        """
        if lengths is None and self.config.rope.kind == "longrope":
            lengths = sequence_lengths(positions)
        return ropes_at(positions, self.config, lengths)

    def _flag(self, of: Callable[[int], bool], layer: int | Array, layers: tuple[int, ...]) -> bool | Array:
        """A flag of one of these layers; as a Python bool where all agree, so that no step has to choose."""
        flags = {of(one) for one in layers}
        if len(flags) == 1:
            return flags.pop()
        return jnp.array([of(scanned) for scanned in range(self.config.layers - 1)])[layer]

    def window(self, slides: bool | Array) -> int | Array | None:
        """The window of a layer with this flag."""
        if isinstance(slides, bool):
            return self.config.window if slides else None
        return jnp.where(slides, self.config.window or UNLIMITED, UNLIMITED)

    def logits(self, hidden: Float[Array, "B C D"]) -> Float[Array, "B C V"]:
        """Next-token logits of hidden states, fp32, scaled and soft-capped where the family does."""
        if self.lm_head is None:
            kernel, width_axis = self.embed.embedding[...].astype(hidden.dtype), 1
        else:
            kernel, width_axis = self.lm_head.weight(hidden.dtype), 0
        # Not `jnp.einsum`, which makes a function to compile of each call that JAX then keeps (2,048 of them).
        over_width = (((2,), (width_axis,)), ((), ()))
        logits = jax.lax.dot_general(hidden, kernel, over_width, preferred_element_type=jnp.float32)
        if self.config.logit_divisor != 1:
            logits = logits / self.config.logit_divisor
        cap = self.config.logit_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def _of_layers(each: Array, layers: tuple[int, ...]) -> Array:
    """The entries of these layers, of an array that has one for every layer."""
    run = each[layers[0] : layers[-1] + 1]
    return run if len(run) == len(layers) else run[np.array(layers) - layers[0]]


def _stacked(stack: Stack, config: DecoderConfig, lora: LoraConfig, seed: Seed) -> Block:
    """A block whose parameters carry a leading axis of layers."""

    def layer(number: int | Array) -> Block:
        return Block(stack.kind, config, lora, seed=seed.fold(number))

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: layer(0)))
    weights = jax.vmap(lambda number: nnx.state(layer(number)))(jnp.array(stack.layers))
    return nnx.merge(graphdef, weights)
