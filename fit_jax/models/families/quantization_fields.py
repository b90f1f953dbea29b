"""What a `config.json` says of weights that are stored quantised."""

from collections.abc import Mapping
from dataclasses import dataclass

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, shown

# Methods of any family, beside those that only some come in.
METHODS = ("bitsandbytes", "gptq", "awq", "fp8")
# Whether GPTQ's zeros are stored less one.
_ONE_BELOW = {"gptq": True, "gptq_v2": False}
_LARGEST = 1 << 16
# Outputs and inputs of FP8 that share a scale where a config does not say.
_TILE = (128, 128)


@dataclass(frozen=True)
class Quantization:
    """How weights are stored.

    Attributes:
        method: One of `METHODS`, or the one that a family has of its own.
        bits: Of a number, in GPTQ and AWQ alone.
        group: Following inputs that share a scale there, where no tensor says which; 0 of all.
        one_below: Whether zeros of GPTQ are stored less one.
        tile: Outputs and inputs of FP8 that share a scale; None where a whole weight has one.
    """

    method: str
    bits: int = 4
    group: int = 0
    one_below: bool = False
    tile: tuple[int, int] | None = None

    @property
    def of_any_family(self) -> bool:
        """Whether models of every family may be stored so."""
        return self.method in METHODS


def read_quantization(stored: object, where: str, of_family: str | None) -> Quantization:
    """What `quantization_config` says.

    Args:
        stored: The field's value.
        where: The file and the field, for error messages.
        of_family: A method that this family has besides.

    Raises:
        InputError: Another method, or a variant of one that is not read.
    """
    known = METHODS if of_family is None else (*METHODS, of_family)
    method = stored.get("quant_method") if isinstance(stored, Mapping) else None
    if not isinstance(stored, Mapping) or method not in known:
        given = stored if method is None or not isinstance(stored, Mapping) else f"of quant_method {shown(method)}"
        raise InputError(
            f"{where} {shown(given)} is not read; name a model in one of {', '.join(known)}, or the plain one"
        )
    fields = Fields(stored, where)
    if method == "gptq":
        bits, known_bits = fields.whole("bits", 1, 32), (2, 4, 8)
        below = _ONE_BELOW[fields.choice(_format(fields, "checkpoint_format"), _ONE_BELOW, "gptq")]
    elif method == "awq":
        bits, known_bits, below = fields.whole("bits", 1, 32, 4), (4,), False
        fields.choice(_format(fields, "version"), ("gemm", "GEMM"), "gemm")
        fields.choice("backend", ("autoawq",), "autoawq")
    else:
        bits, known_bits, below = 4, (4,), False
    if bits not in known_bits:
        raise fields.error("bits", bits, f"not what is read ({', '.join(map(str, known_bits))})")
    group = fields.whole("group_size", -1, _LARGEST, 128) if method in ("gptq", "awq") else 0
    tile = _TILE if method == "fp8" and "weight_block_size" not in stored else None
    if method == "fp8" and fields.has("weight_block_size"):
        sizes = [int(size) for size in fields.numbers("weight_block_size", 0, _LARGEST) or ()]
        if len(sizes) != 2 or min(sizes) < 1:
            raise fields.error("weight_block_size", stored["weight_block_size"], "no pair of whole numbers")
        tile = sizes[0], sizes[1]
    return Quantization(str(method), bits, max(group, 0), below, tile)


def _format(fields: Fields, name: str) -> str:
    """The field that says how words are packed, of which `format` is the newer name."""
    return name if fields.has(name) or not fields.has("format") else "format"
