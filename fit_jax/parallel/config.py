"""How a job's devices are laid out."""

from dataclasses import dataclass

from fit_jax.errors import InputError

# The mesh's axes in their order, named as the fields of `MeshConfig` that give their sizes.
AXES = DATA, FSDP, TENSOR, CONTEXT, EXPERT = ("data", "fsdp", "tensor", "context", "expert")
# The axes over which the rows of a batch are split.
ROWS = (DATA, FSDP, EXPERT)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Device mesh: the size of each axis; one of them may be -1 and takes what is left."""

    # Parts among which rows are divided; each has a copy of the parameters.
    data: int = -1
    # Parts among which rows are divided, and parameters and optimizer state too.
    fsdp: int = 1
    # Parts into which heads, feed-forward width and vocabulary are divided.
    tensor: int = 1
    # Splits long sequences.
    context: int = 1
    # Parts among which rows are divided, and the experts of a mixture: tokens travel to their experts, and back.
    # Without experts, or with a number that it does not divide, it divides rows alone, as `data` does.
    expert: int = 1
    # TPU slices; `data` spans them.
    slices: int = 1
    # Processes that must take part, one a host or GPU; null means as many as the launcher has started.
    processes: int | None = None
    # Seconds to wait for processes that are missing at the start, or fall silent later.
    timeout: int = 300

    def check(self) -> None:
        """Raises InputError for a time or a number of processes or slices that is less than 1."""
        for name in ("timeout", "processes", "slices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"mesh.{name}: {value} is less than 1")
