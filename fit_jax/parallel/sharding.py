"""One rule table: how every parameter, optimizer moment and batch lies on the mesh, by the name of its path."""

import math
import re
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fit_jax.parallel.config import CONTEXT, EXPERT, FSDP, ROWS, TENSOR

# What splits each dimension of a batch's arrays: rows (B), tokens (T), target positions (C).
BATCH_AXES = {"B": ROWS, "T": CONTEXT, "C": None}

# First match wins. A spec is about the trailing dimensions; of leading axes, that of layers is never split, and that of
# experts over `expert`.
# Projections into heads or the feed-forward width split their output over `tensor`, those back to the model's width
# split their input, so that a pair needs one sum over `tensor`. An adapter follows the kernel it stands beside; its
# rank is never split.
RULES: tuple[tuple[re.Pattern[str], P], ...] = tuple(
    (re.compile(rf"(^|\.){pattern}$"), spec)
    for pattern, spec in (
        (r"(v_row|v_col)\..*|ns_coeffs", P()),  # Adafactor's means over rows and columns, Muon's coefficients
        (r"(q|k|v|gate|up)_proj\.kernel(\.codes|\.scales)?", P(FSDP, TENSOR)),
        (r"(q|k|v|gate|up)_proj\.(bias|kernel\.scale_max|lora_magnitude)", P(TENSOR)),
        (r"(q|k|v|gate|up)_proj\.lora_a", P(FSDP, None)),
        (r"(q|k|v|gate|up)_proj\.lora_b", P(None, TENSOR)),
        (r"(o|out|down)_proj\.kernel(\.codes|\.scales)?", P(TENSOR, FSDP)),
        (r"(o|out|down)_proj\.lora_a", P(TENSOR, None)),
        (r"(o|out|down)_proj\.lora_b", P(None, FSDP)),
        (r"in_proj_(qkvz?|z)\.kernel(\.codes|\.scales)?|in_proj_(a|b|ba)\.kernel", P(FSDP, TENSOR)),
        (r"in_proj_\w+\.(kernel\.scale_max|lora_magnitude)|linear_attention\.(log_rate|step_bias)", P(TENSOR)),
        (r"in_proj_\w+\.lora_a", P(FSDP, None)),
        (r"in_proj_\w+\.lora_b", P(None, TENSOR)),
        (r"linear_attention\.conv", P(TENSOR, None, None)),
        (r"router\.(kernel|bias)|beside\.gate\.kernel|(layer|router|expert)_scale", P()),
        (r"(layer_inputs\.projection|layer_input\.gate)\.kernel", P(FSDP, None)),
        (r"layer_input\.projection\.kernel", P(None, FSDP)),
        (r"attention\.sinks", P(TENSOR)),
        (r"(embed|layer_inputs)\.embedding", P(TENSOR, FSDP)),
        (r"lm_head\.kernel", P(FSDP, TENSOR)),
        (r"(o|out|down)_proj\.(bias|kernel\.scale_max|lora_magnitude)", P(None)),
        (r"\w*norm\.(scale|bias)", P()),
    )
)


# Stacks are blocks, blocks_1 and so on. Moments of an optimizer have names that end so.
_STACKED = re.compile(r"blocks(_\d+)?\.")
_WITHIN_STACK = re.compile(r"(^|\.)blocks(_\d+)?\.")
# What experts have in a mixture, and a feed-forward part elsewhere.
_FEED_FORWARD = re.compile(
    r"^(?!.*\b(v_row|v_col|ns_coeffs)\b).*(gate|up|down)_proj\.(kernel(\.\w+)?|bias|lora_a|lora_b)$"
)


class Layout(NamedTuple):
    """How a pytree lies on a mesh.

    Attributes:
        shardings: A `NamedSharding` for every leaf of the pytree.
        replicated: One line for each dimension that its mesh axis does not divide and that is therefore not split.
    """

    shardings: Any
    replicated: tuple[str, ...]


def path_name(path: tuple[object, ...]) -> str:
    """Dotted name of a leaf's path, as in `blocks.attention.q_proj.kernel`; NNX's `value` level is left out."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def is_stacked(name: str) -> bool:
    """Whether a named parameter has a leading axis of layers: those of all layers but the last."""
    return _STACKED.match(name) is not None


def named_leaves(tree: object) -> dict[str, Any]:
    """The leaves of a tree by dotted name, in the order of `jax.tree.leaves`."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def lay_out_tree(tree: Any, mesh: Mesh) -> Layout:
    """Shardings of a pytree of parameters, optimizer moments or a whole training state, by `RULES`.

    Scalars are replicated. Optimizer moments end in the name of their parameter and so lie as it does; an array of
    fewer dimensions under such a name, where Adafactor keeps no moment, is replicated.

    Args:
        tree: Arrays or `jax.ShapeDtypeStruct`s.
        mesh: The mesh.

    Raises:
        ValueError: An array of one or more dimensions matches no rule.
    """
    notes: list[str] = []

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        spec, note = _fitted(path_name(path), leaf.shape, mesh)
        notes.extend(note)
        return NamedSharding(mesh, spec)

    return Layout(jax.tree_util.tree_map_with_path(place, tree), tuple(dict.fromkeys(notes)))


def batch_sharding(mesh: Mesh, axes: str) -> NamedSharding:
    """How an array of a batch lies whose dimensions are, by letter, `axes`: BT or BC, say."""
    return NamedSharding(mesh, P(*(BATCH_AXES[axis] for axis in axes)))


def experts_apart(mesh: Mesh | AbstractMesh, experts: int) -> bool:
    """Whether each device has some of so many experts alone, to which tokens travel."""
    return experts > 0 and mesh.shape[EXPERT] > 1 and experts % mesh.shape[EXPERT] == 0


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split; the batch size must be a multiple of it."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def element_count(tree: object) -> int:
    """How many numbers the arrays of a tree hold, or those that its `jax.ShapeDtypeStruct`s stand for."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def byte_count(tree: object) -> int:
    """Bytes of a tree's arrays, whole."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def bytes_held(tree: object) -> int:
    """Bytes that a device holds of a tree's arrays, which carry shardings."""
    return byte_count(parts_held(tree))


def parts_held(tree: object) -> Any:
    """A tree's arrays, which carry shardings, as the part of each that a device holds."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype), tree)


def _fitted(name: str, shape: tuple[int, ...], mesh: Mesh) -> tuple[P, list[str]]:
    """The spec of a named array on this mesh, unsplit where a size is not divisible, and lines that say so."""
    if not shape:
        return P(), []
    rule = next((spec for pattern, spec in RULES if pattern.search(name)), None)
    if rule is None:
        raise ValueError(f"no sharding rule matches parameter {name} {shape}")
    first = len(shape) - len(rule)
    if first < 0:
        return P(), []
    axes: list[str | None] = []
    leading: list[str | None] = [None] * first
    if _FEED_FORWARD.search(name) and first > (_WITHIN_STACK.search(name) is not None):
        leading[-1] = EXPERT
    notes = []
    for size, axis in zip(shape, (*leading, *rule)):
        if axis is not None and size % mesh.shape[axis]:
            notes.append(f"{name}: {size} is not divisible by {axis} {mesh.shape[axis]}; that dimension is replicated")
            axis = None
        axes.append(axis)
    return P(*axes), notes
