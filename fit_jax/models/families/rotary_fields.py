"""The rotary embedding in `config.json`, both ways: the fields of transformers 4 and of transformers 5."""

import math
from typing import Any, NamedTuple

from fit_jax.errors import InputError
from fit_jax.foreign import Fields
from fit_jax.models.families.family import LARGEST_NUMBER, LIMIT, MOST_TOKENS, FamilyTraits, read_optional
from fit_jax.models.rope_config import RopeConfig

_THETA = 10000.0
_FULL, _LOCAL = "full_attention", "sliding_attention"
_ORIGINAL = "original_max_position_embeddings"


class FoundRopes(NamedTuple):
    """RoPE of full layers, and the theta of sliding layers where theirs is another."""

    full: RopeConfig
    sliding_theta: float | None


def read_ropes(fields: Fields, traits: FamilyTraits) -> FoundRopes:
    """The rotary embeddings of a model, found where transformers finds them.

    Args:
        fields: Of `config.json`, the family's defaults included.
        traits: The family.
    """
    scaling, new = fields.section("rope_scaling"), fields.section("rope_parameters")
    if new is None or not (new.has(_FULL) or new.has(_LOCAL)):
        given = scaling if scaling is not None and scaling.values else new
        full = _rope(given or Fields({}, fields.where), fields, traits)
        return FoundRopes(full, _other(full, read_optional(fields, "rope_local_base_freq")))
    # The scaling of an older config goes over what stands there.
    nested = new.section(_FULL) or Fields({}, new.where)
    over = {} if scaling is None else scaling.values
    full = _rope(Fields({**nested.values, **over}, nested.where), fields, traits)
    local = new.section(_LOCAL)
    if local is None:
        return FoundRopes(full, None)
    sliding = _rope(local, fields, traits)
    if sliding.kind != "default":
        raise InputError(f"{local.where}: scaled RoPE in sliding layers is not supported")
    return FoundRopes(full, _other(full, sliding.theta))


def rope_scaling(rope: RopeConfig) -> dict[str, Any] | None:
    """What `rope_scaling`, or `rope_parameters` besides theta, says of a rotary embedding; None where it is plain."""
    fields: dict[str, Any] = {"rope_type": rope.kind}
    if rope.kind == "proportional":
        fields["partial_rotary_factor"] = rope.partial
    if rope.kind not in ("default", "longrope", "proportional") or rope.factor != 1:
        fields["factor"] = rope.factor
    if rope.kind == "llama3":
        fields |= {"low_freq_factor": rope.low_freq_factor, "high_freq_factor": rope.high_freq_factor}
    if rope.kind == "yarn":
        fields |= {"beta_fast": rope.beta_fast, "beta_slow": rope.beta_slow, "truncate": rope.truncate}
    if rope.kind == "longrope":
        short, long = rope.short_factors or (), rope.long_factors or ()
        fields |= {"short_factor": list(short), "long_factor": list(long)}
    if rope.kind in ("yarn", "longrope"):
        fields["attention_factor"] = rope.attention_factor
    if rope.kind in ("llama3", "yarn", "longrope"):
        fields[_ORIGINAL] = rope.original_max_positions
    return None if rope.kind == "default" else fields


def _other(full: RopeConfig, theta: float | None) -> float | None:
    return None if full.kind == "default" and theta == full.theta else theta


def _rope(given: Fields, fields: Fields, traits: FamilyTraits) -> RopeConfig:
    theta = given.number("rope_theta", 0, LARGEST_NUMBER, fields.number("rope_theta", 0, LARGEST_NUMBER, _THETA))
    name = "rope_type" if given.has("rope_type") else "type"
    kind = traits.rope_kinds[given.choice(name, traits.rope_kinds, "default")]
    values: dict[str, Any] = {} if kind == "proportional" else {"partial": _partial(given, fields, traits)}
    if kind != "default":
        values |= _scaling(kind, given, fields)
    if given.has("llama_4_scaling_beta"):
        values["temperature_beta"] = given.number("llama_4_scaling_beta", -1e-9, 1e6)
        values["original_max_positions"] = _original(given, fields)
    return RopeConfig(theta=theta, kind=kind, **values)  # pyright: ignore[reportArgumentType]


def _scaling(kind: str, given: Fields, fields: Fields) -> dict[str, Any]:
    if kind == "linear":
        return {"factor": given.number("factor", 0, LARGEST_NUMBER)}
    if kind == "proportional":
        share = given.number("partial_rotary_factor", 0, 1, 1.0)
        return {"factor": given.number("factor", 0, LARGEST_NUMBER, 1.0), "partial": share}
    original = _original(given, fields)
    if kind == "llama3":
        return {
            "factor": given.number("factor", 0, LARGEST_NUMBER),
            "low_freq_factor": given.number("low_freq_factor", 0, LARGEST_NUMBER),
            "high_freq_factor": given.number("high_freq_factor", 0, LARGEST_NUMBER),
            "original_max_positions": original,
        }
    factor = given.number("factor", 0, LARGEST_NUMBER, fields.whole(LIMIT, 1, MOST_TOKENS) / original)
    attention = read_optional(given, "attention_factor")
    if kind == "longrope":
        longer = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 and original > 1 else 1.0
        factors = [given.numbers(f"{which}_factor", 0, LARGEST_NUMBER) for which in ("short", "long")]
        if None in factors:
            raise InputError(f"{given.where}: lacks short_factor or long_factor; fetch the file again")
        short, long = factors
        return {
            "short_factors": short,
            "long_factors": long,
            "attention_factor": attention or longer,
            "original_max_positions": original,
        }
    return {
        "factor": factor,
        "beta_fast": given.number("beta_fast", 0, LARGEST_NUMBER, 32.0),
        "beta_slow": given.number("beta_slow", 0, LARGEST_NUMBER, 1.0),
        "truncate": given.flag("truncate", True),
        "attention_factor": attention or _yarn_attention(factor, given),
        "original_max_positions": original,
    }


def _yarn_attention(factor: float, given: Fields) -> float:
    """YaRN's factor on cosines and sines, of which DeepSeek's models divide one by another."""

    def scale(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    one, other = (given.number(name, -1e-9, LARGEST_NUMBER, 0.0) for name in ("mscale", "mscale_all_dim"))
    return scale(one) / scale(other) if one and other else scale(1.0)


def _original(given: Fields, fields: Fields) -> int:
    """Positions before scaling; what stands beside the rotary embedding's own fields goes first (Phi-3)."""
    if fields.has(_ORIGINAL):
        return fields.whole(_ORIGINAL, 1, MOST_TOKENS)
    return given.whole(_ORIGINAL, 1, MOST_TOKENS, fields.whole(LIMIT, 1, MOST_TOKENS))


def _partial(given: Fields, fields: Fields, traits: FamilyTraits) -> float:
    source = given if given.has("partial_rotary_factor") else fields
    share = source.number("partial_rotary_factor", 0, 1, 1.0)
    if share != 1 and not traits.partial_rotary:
        raise source.error("partial_rotary_factor", share, f"not what {traits.architecture} has")
    return share
