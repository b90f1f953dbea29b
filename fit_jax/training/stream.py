"""The training batches as global arrays on the mesh."""

from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import Any, Generic

from jax.sharding import Mesh

from fit_jax.data.loader import TrainLoader
from fit_jax.data.sampler import BatchType
from fit_jax.parallel.processes import maximum_over_processes, rows_of_this_process, to_global

# Batches on the devices ahead of the step that needs them.
AHEAD = 2


class BatchStream(Generic[BatchType]):
    """A loader's batches, each process bringing its own rows to the devices before they are needed."""

    def __init__(self, loader: TrainLoader[BatchType], batch_size: int, mesh: Mesh) -> None:
        """Args are the loader, the rows of a global batch, and where they go."""
        self._loader = loader
        self._rows = rows_of_this_process(batch_size, mesh)
        self._mesh = mesh

    def iterate(self, start: int, stop: int) -> Generator[BatchType]:
        """The batches of steps `start` to `stop` (exclusive); the next ones are on their way while one is used."""
        waiting: deque[BatchType] = deque()
        with closing(self._loader.iterate(start, stop, self._rows)) as batches:
            for batch in batches:
                waiting.append(to_global(batch, self._mesh))
                if len(waiting) > AHEAD:
                    yield waiting.popleft()
        yield from waiting

    def state(self, step: int) -> dict[str, Any]:
        """What makes resuming at `step` cheap, the same on every process, as plain JSON."""
        state = self._loader.state(step)
        return state | {"marks": maximum_over_processes(state["marks"])}
