"""What a model family is: how its `config.json` and its tensors map to the one decoder, both ways."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from fit_jax.foreign import Fields
from fit_jax.models.config import EXPERT_PROJECTIONS, DecoderConfig
from fit_jax.models.limits import LARGEST

LIMIT, ATTENTION_BIAS = "max_position_embeddings", "attention_bias"
MOST_TOKENS = 1 << 31
LARGEST_NUMBER = 1e12
Entry = TypeVar("Entry")
_KINDS = ("full_attention", "sliding_attention")


def read_optional(fields: Fields, name: str) -> float | None:
    """A number above 0, or None where there is none."""
    return fields.number(name, 0, LARGEST_NUMBER) if fields.has(name) else None


def read_window(fields: Fields, layers: int, slides: Callable[[int], bool] = lambda _: True) -> dict[str, Any]:
    """`window` and `sliding_layers` from `sliding_window` and `layer_types`.

    Args:
        fields: Of `config.json`.
        layers: L.
        slides: Whether a layer slides where `layer_types` does not say it.
    """
    window = fields.whole("sliding_window", 1, LARGEST["window"]) if fields.has("sliding_window") else None
    sliding = [layer for layer in range(layers) if slides(layer)]
    if kinds := fields.texts("layer_types"):
        if len(kinds) != layers or not {*kinds} <= {*_KINDS}:
            raise fields.error("layer_types", kinds, f"no list of {layers} kinds of attention")
        sliding = [layer for layer in range(layers) if kinds[layer] == _KINDS[1]]
    if window is None or not sliding:
        return {}
    return {"window": window, "sliding_layers": tuple(sliding) if len(sliding) < layers else None}


def read_one_window(fields: Fields, layers: int) -> dict[str, Any]:
    """`window` from `sliding_window`, of a family whose layers all slide or none."""
    found = read_window(fields, layers)
    if found.get("sliding_layers") or (fields.has("sliding_window") and not found):
        raise fields.error("layer_types", fields.values["layer_types"], "not what all layers of this family have")
    return found


def write_window(config: DecoderConfig) -> dict[str, Any]:
    """`sliding_window` and `layer_types`."""
    kinds = [_KINDS[config.slides(layer)] for layer in range(config.layers)]
    return {"sliding_window": config.window, "layer_types": kinds}


def write_one_window(config: DecoderConfig) -> dict[str, Any]:
    """`sliding_window` of a family whose layers all slide or none."""
    return {"sliding_window": config.window}


def nothing_more(*_: object) -> dict[str, Any]:
    """Of a family that has nothing to read, or to write, but what all have."""
    return {}


@dataclass(frozen=True)
class FamilyTraits:
    """What sets a family apart.

    Attributes:
        architecture: Class name in `architectures`.
        defaults: Config fields that a config.json of this family may leave out.
        switches: What the family fixes in `DecoderConfig`.
        read: From the fields of config.json and the number of layers to fields of `DecoderConfig`, besides those that
            all families have (sizes, norms, rotary embedding, vocabulary).
        write: From a decoder to the fields of config.json, besides those that all families have.
        activation_field: Where config.json names the activation.
        rope_kinds: By the name in config.json, the scalings of the rotary embedding that the family has.
        partial_rotary: Whether heads may turn in part.
        flat_rope: Whether config.json tells of a rotary embedding beside its other fields, as transformers 4 does.
        fused: A module whose tensor holds several projections one after another, and these.
        experts: Names of the router and of an expert's projections; `{}` stands for the expert. Without it one tensor
            holds a projection of all experts, (E, in, out), in which the outputs of those that share a name alternate,
            and `NAME_bias` their biases.
        experts_turned: That tensor is (E, out, in) instead, and the outputs of those that share it follow each other.
        unread: Names of tensors that its checkpoints may hold and that nothing computes with.
        unread_from: What the names of others begin with that are left out as well.
        shared_by_parameter: PEFT takes the names of a shared expert's projections for those of all experts, so that
            their adapters are told by the parameters.
        packed: The `quant_method` in which its checkpoints may be stored; None means that they are not.
    """

    architecture: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Fields, int], dict[str, Any]] = read_window
    write: Callable[[DecoderConfig], dict[str, Any]] = write_window
    activation_field: str = "hidden_act"
    rope_kinds: Mapping[str, str] = field(
        default_factory=lambda: {kind: kind for kind in ("default", "linear", "llama3", "yarn", "longrope")}
    )
    partial_rotary: bool = False
    flat_rope: bool = True
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    experts: Mapping[str, str] = field(
        default_factory=lambda: {
            "router": "mlp.gate",
            **{name: f"mlp.experts.{{}}.{name}" for name in EXPERT_PROJECTIONS},
        }
    )
    experts_turned: bool = False
    unread: Callable[[DecoderConfig], Iterable[str]] = nothing_more
    unread_from: tuple[str, ...] = ()
    shared_by_parameter: bool = False
    packed: str | None = None


def turned(of_axes: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """What there is for each axis of an array, for its last two axes the other way round."""
    return (*of_axes[:-2], *of_axes[:-3:-1])


class Source(NamedTuple):
    """Where a parameter's entries of one layer come from.

    Attributes:
        name: The tensor's.
        transposed: Whether it is stored so, outputs before inputs.
        first: The output of the tensor with which they begin, where it holds more than them.
        outputs: The outputs of the whole tensor; None where it holds nothing else.
        step: From one of their outputs to the next; 1 where they stand together.
    """

    name: str
    transposed: bool
    first: int = 0
    outputs: int | None = None
    step: int = 1

    def tensor_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor, given that of the parameter in one layer."""
        whole = shape if self.outputs is None else (*shape[:-1], self.outputs)
        return turned(whole) if self.transposed else whole

    def slices(self, index: tuple[slice, ...]) -> tuple[slice, ...]:
        """Where in the tensor these entries of the parameter in one layer are."""
        *others, own = index
        start = own.start * self.step + self.first
        placed = (*others, slice(start, start + (own.stop - own.start - 1) * self.step + 1, self.step))
        return turned(placed) if self.transposed else placed
