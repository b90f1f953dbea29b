"""Checkpoints that others quantised (bitsandbytes, GPTQ, AWQ, FP8), read as the plain weights that they stand for."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fit_jax.errors import InputError
from fit_jax.foreign import listed, named, shown
from fit_jax.models.dequantize import SCALES, STATES, Blocks4, Misfit, Part, Rows8, Scaled8, Weight, Words
from fit_jax.models.families.quantization_fields import Quantization
from fit_jax.models.tensor_files import Tensor, TensorFiles

# Numbers of a weight that are held in fp32 at once.
MOST_NUMBERS = 1 << 22


class _Format(NamedTuple):
    """The ends of the names of a weight's tensors: by which it is known, what it needs, and what it may have."""

    mark: str
    needed: tuple[str, ...]
    possible: tuple[str, ...]
    kind: type[Weight]


_NESTED = ("weight.nested_absmax", "weight.nested_quant_map")
# Of activations, of which FP8 has scales too: they stay as they are here.
_ACTIVATIONS = ("activation_scale", "input_scale", "k_scale", "v_scale", "kv_scale")
_FORMATS: dict[str, tuple[_Format, ...]] = {
    "bitsandbytes": (
        *(_Format(state, ("weight", "weight.absmax", "weight.quant_map"), _NESTED, Blocks4) for state in STATES),
        _Format("SCB", ("weight",), ("weight_format",), Rows8),
    ),
    "gptq": (_Format("qweight", ("qzeros", "scales"), ("g_idx",), Words),),
    "awq": (_Format("qweight", ("qzeros", "scales"), (), Words),),
    "fp8": tuple(_Format(end, ("weight",), _ACTIVATIONS, Scaled8) for end in SCALES),
}


class QuantizedFiles(TensorFiles):
    """The tensors of a folder, where those that stand for a weight are seen as that weight, in plain numbers."""

    def __init__(
        self, folder: Path, said: Quantization, renamed: Callable[[str], str | None] = lambda name: name
    ) -> None:
        """As `TensorFiles`.

        Args:
            folder: Where the files lie.
            said: What its config says of them.
            renamed: The name that a stored tensor goes by; None of one that is left out.

        Raises:
            InputError: Tensors of a weight are missing, or of shapes or dtypes that do not go together.
        """
        super().__init__(folder, renamed)
        self._weights: dict[str, tuple[Weight, Part]] = {}
        for form in _FORMATS[said.method]:
            for mark in [name for name in self.tensors if name.endswith(f".{form.mark}")]:
                self._take(mark.removesuffix(f".{form.mark}"), form, said)

    def _take(self, stem: str, form: _Format, said: Quantization) -> None:
        file = self.tensors[f"{stem}.{form.mark}"].file
        if missing := [end for end in form.needed if f"{stem}.{end}" not in self.tensors]:
            raise InputError(
                f"{named(file)}: {shown(stem)} lacks {listed(missing)}, which {said.method} has; fetch the files again"
            )
        ends = (form.mark, *form.needed, *(end for end in form.possible if f"{stem}.{end}" in self.tensors))
        parts = {end: self.tensors.pop(f"{stem}.{end}") for end in ends}
        read = partial(self._part, stem)
        try:
            if f"{stem}.weight" in self.tensors:
                raise Misfit("it has a plain weight as well")
            weight = form.kind.of(parts, read, said)
        except Misfit as error:
            raise InputError(
                f"{named(file)}: {shown(stem)} cannot be read as {said.method}: {error}; fetch the files and "
                "config.json again"
            ) from error
        self.tensors[f"{stem}.weight"] = Tensor(weight.shape, weight.dtype, file)
        self._weights[f"{stem}.weight"] = weight, read

    def _part(self, stem: str, end: str, *index: slice) -> np.ndarray:
        return super().read(f"{stem}.{end}", index)

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """As `TensorFiles.read`, a quantised weight in plain numbers."""
        if name not in self._weights:
            return super().read(name, index)
        weight, part = self._weights[name]
        index = index or (slice(None),) * 2
        rows, columns = (slice(*s.indices(n)[:2]) for s, n in zip(index, weight.shape))
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start), weight.dtype)
        if values.size:
            for some in _runs(rows, max(MOST_NUMBERS // weight.shape[1], 1)):
                values[some.start - rows.start : some.stop - rows.start] = weight.read(part, some, columns)
        return values[tuple(slice(None, None, s.step) for s in index)]

    def is_idle(self, name: str) -> bool:
        """Whether a tensor is a bias of zeros, as AutoGPTQ writes for projections that have none."""
        stem, _, end = name.rpartition(".")
        return end == "bias" and f"{stem}.weight" in self._weights and not self.read(name).any()


def _runs(rows: slice, most: int) -> Iterator[slice]:
    for start in range(rows.start, rows.stop, most):
        yield slice(start, min(start + most, rows.stop))
