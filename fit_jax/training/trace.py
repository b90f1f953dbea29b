"""A trace of some training steps, which TensorBoard's profile page and XProf open."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from fit_jax.errors import cannot_write
from fit_jax.foreign import named

Result = TypeVar("Result")

# The first step allocates and warms up; what is recorded is the pace of training.
_SKIPPED = 1


class Trace:
    """Records the second step that a process takes and those after it, as many as are asked for."""

    def __init__(self, folder: Path, steps: int) -> None:
        """`folder` is TensorBoard's: the trace comes under `plugins/profile` there. 0 steps record nothing."""
        self._folder = folder
        self._left = steps
        self._skipped = _SKIPPED
        self._recording = False

    def step(self, number: int, take: Callable[[], Result]) -> Result:
        """What `take`, the step of this number, gives; waits for the device before the first and after the last."""
        if self._skipped or not self._left:
            self._skipped = max(self._skipped - 1, 0)
            result = take()
            if self._left and not self._skipped:
                jax.block_until_ready(result)
            return result
        if not self._recording:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            result = take()
        self._left -= 1
        if not self._left:
            jax.block_until_ready(result)
            self.close()
        return result

    def close(self) -> None:
        """Writes what has been recorded, if anything has and is not written yet.

        Raises:
            InputError: It cannot be written.
        """
        if self._recording:
            self._recording, self._left = False, 0
            try:
                jax.profiler.stop_trace()
            except (jax.errors.JaxRuntimeError, OSError) as error:
                raise cannot_write(
                    f"the trace in {named(self._folder)}", error, "or leave out train.profile"
                ) from error
