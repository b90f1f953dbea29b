"""Files that hold the experts of a layer in one tensor, read as those of each expert.

Of a family whose experts have names (`mlp.experts.3.gate_proj.weight`) transformers 5 holds, and some publish,
`mlp.experts.gate_up_proj` (E, 2 F, D), gates before ups, and `mlp.experts.down_proj` (E, D, F).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fit_jax.errors import InputError
from fit_jax.foreign import named, shown
from fit_jax.models.tensor_files import Tensor, TensorFiles

_EACH = ".{}."
_TOGETHER = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}


class _Place(NamedTuple):
    """Where a matrix lies in a tensor of all experts: the tensor's name, the expert, and the first of its outputs."""

    name: str
    expert: int
    first: int


class StackedFiles(TensorFiles):
    """The tensors of a folder, where one of all experts is seen as those of each of them."""

    def __init__(
        self, folder: Path, experts: Mapping[str, str], renamed: Callable[[str], str | None] = lambda name: name
    ) -> None:
        """As `TensorFiles`.

        Args:
            folder: Where the files lie.
            experts: The family's names of its experts' projections, `{}` in place of the expert.
            renamed: The name that a stored tensor goes by; None of one that is left out.

        Raises:
            InputError: A tensor of all experts is of a shape that none has.
        """
        super().__init__(folder, renamed)
        self._places: dict[str, _Place] = {}
        for together, parts in _TOGETHER.items():
            end = f".{experts[parts[0]].partition(_EACH)[0]}.{together}"
            for name in [name for name in self.tensors if name.endswith(end)]:
                self._take(name, parts, experts)

    def _take(self, name: str, parts: tuple[str, ...], experts: Mapping[str, str]) -> None:
        whole = self.tensors.pop(name)
        if len(whole.shape) != 3 or whole.shape[1] % len(parts):
            raise InputError(
                f"{named(whole.file)}: {shown(name)} has shape {whole.shape}, and not that of {' and '.join(parts)} of "
                "all experts; fetch the files again"
            )
        outputs, stem = whole.shape[1] // len(parts), name.rpartition(".")[0]
        for number, part in enumerate(parts):
            for expert in range(whole.shape[0]):
                own = f"{stem}.{expert}.{experts[part].partition(_EACH)[2]}.weight"
                self.tensors[own] = Tensor((outputs, whole.shape[2]), whole.dtype, whole.file)
                self._places[own] = _Place(name, expert, number * outputs)

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """As `TensorFiles.read`, of a tensor of all experts what is one expert's."""
        if name not in self._places:
            return super().read(name, index)
        whole, expert, first = self._places[name]
        shape = self.tensors[name].shape
        rows, columns = (slice(*s.indices(n)) for s, n in zip(index or (slice(None),) * 2, shape))
        placed = slice(expert, expert + 1), slice(first + rows.start, first + rows.stop, rows.step), columns
        return super().read(whole, placed)[0]
