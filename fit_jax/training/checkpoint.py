"""Checkpoints by Orbax: written in the background, whole or not at all, read back on any mesh.

Beside each stands `STEP.whole`, with size and SHA-256 of its files, against which it is held before it is used.
"""

import logging
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from fit_jax.errors import InputError, RunFailed, cannot_write, machine_remedy, reason
from fit_jax.files import check_outputs
from fit_jax.foreign import named, shown, silent
from fit_jax.parallel.processes import are_alike, is_lead, on_lead
from fit_jax.parallel.sharding import named_leaves
from fit_jax.training.checkpoint_sums import CheckpointSums
from fit_jax.training.state import TrainState

FOLDER = "checkpoints"
# The parts of a checkpoint.
_STATE, _PROGRESS = "state", "progress"
# Bytes from which on a replicated array is cut up and saved by all its replicas: for each cut a program is compiled,
# which for a small model takes longer than training it.
_LEAST_SLICE = 1 << 24
# Seconds after which all arrays that were being read with one that cannot be have reported it too.
_LATER = 0.5


@contextmanager
def _reading() -> Iterator[None]:
    """Keeps silent of what Orbax and TensorStore say of damage besides the error that they raise."""
    with silent():
        try:
            yield
        except Exception:
            time.sleep(_LATER)
            raise


class Checkpoints:
    """The checkpoints of a run: the newest ones and the best.

    A checkpoint holds the training state by parameter name, without the frozen parameters where these come from a
    pretrained model, and a JSON object of everything else (`training.progress.Progress`).

    Attributes:
        folder: Holds a folder for each step.
    """

    def __init__(
        self,
        run_folder: Path,
        keep: int,
        with_frozen: bool,
        cleans: bool,
        due: Callable[[int], bool] = lambda step: True,
    ) -> None:
        """Opens the folder.

        Args:
            run_folder: The run's folder.
            keep: Newest checkpoints kept, besides the best.
            with_frozen: Whether checkpoints hold the frozen parameters.
            cleans: Whether to remove what saves that were cut off left behind. Only for the process that trains:
                to any other, the save that is under way looks the same.
            due: Whether a checkpoint belongs after a step. One of another step, where a run was told to stop, goes
                when a newer one is there, so that a run leaves the same whether it was stopped or not.

        Raises:
            InputError: A file stands where the folder should, or not all processes see the same checkpoints.
        """
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.ERROR)
        self._ocp = ocp
        self._with_frozen = with_frozen
        self._policy = _NewestAndBest(keep, due)
        self._saving = 0
        check_outputs(run_folder, (), (FOLDER,))
        self.folder = (run_folder / FOLDER).resolve()
        self._sums = CheckpointSums(self.folder, (_STATE, _PROGRESS))
        if cleans:
            on_lead(self._clean)
        listed = ocp.options.AsyncOptions(post_finalization_callback=self._list_saved)
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy, async_options=listed)
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_LEAST_SLICE)
        state = ocp.PyTreeCheckpointHandler(
            type_handler_registry=ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        )
        handlers = {_STATE: state, _PROGRESS: ocp.JsonCheckpointHandler()}
        with silent():  # as it looks at the checkpoints that are there
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        if not are_alike(zlib.crc32(repr(self.steps()).encode())):
            raise InputError(
                f"{named(self.folder)}: not all processes see the same checkpoints; let all see one folder, or start "
                "again when its storage has caught up"
            )

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are whole, ascending."""
        return sorted(self._manager.all_steps())

    def remedy(self, step: int) -> str:
        """What to do about a damaged checkpoint: nothing is to be deleted, for the fault may lie elsewhere."""
        return self._sums.remedy(step)

    def save(self, step: int, state: TrainState, progress: dict[str, Any], best: int | None) -> None:
        """Starts saving; returns when the state has been copied from the devices, so that it may be donated.

        Args:
            step: Optimizer steps done.
            state: The training state.
            progress: Plain JSON saved with it.
            best: The step of the checkpoint to keep as the best.

        Raises:
            InputError: The checkpoint before could not be written.
            RunFailed: The step was not saved.
        """
        self._policy.best = best
        args = self._ocp.args
        parts = args.Composite(state=args.PyTreeSave(self._saved(state)), progress=args.JsonSave(progress))
        with self._writing():
            self._manager.wait_until_finished()  # then no other save needs the number
            self._saving = step
            saved = self._manager.save(step, args=parts)
        if not saved:
            raise RunFailed(f"checkpoint {step} in {named(self.folder)} was not saved; start the same command again")

    def progress(self, step: int) -> dict[str, Any]:
        """The JSON saved at a step.

        Raises:
            InputError: It is damaged.
        """
        self._sums.check(step, f"{_PROGRESS}/")
        args = self._ocp.args
        return self._restore(step, args.Composite(progress=args.JsonRestore())).progress

    def restore(self, step: int, target: TrainState) -> TrainState:
        """The state saved at a step, laid out as `target`.

        Args:
            step: One of `steps()`.
            target: Shapes, dtypes and shardings, of the whole state or without the optimizer's; its frozen parameters
                are handed through where checkpoints lack them.

        Raises:
            InputError: The checkpoint is damaged or of another model.
        """
        self._sums.check(step)
        args = self._ocp.args
        saved = self._saved(target)
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), saved)
        how = self._ocp.checkpoint_utils.construct_restore_args(wanted)
        parts = args.Composite(state=args.PyTreeRestore(wanted, restore_args=how, partial_restore=True))
        try:
            found = self._restore(step, parts).state
        except InputError:
            self._check_shapes(step, saved)
            raise
        leaves = [found[name] if name in saved else leaf for name, leaf in named_leaves(target).items()]
        return jax.tree.unflatten(jax.tree.structure(target), leaves)

    def tidy(self, best: int | None) -> None:
        """Deletes the checkpoints that a save would have, where the process was killed between the two.

        Args:
            best: The step of the checkpoint to keep as the best.
        """
        self._policy.best = best
        steps = self.steps()
        for step, kept in zip(steps, self._policy.preserved(steps)):
            if not kept:
                self._manager.delete(step)
        if is_lead():
            self._sums.drop()

    def wait(self) -> None:
        """Waits until what was saved is on the disk.

        Raises:
            InputError: It cannot be written.
        """
        with self._writing():
            self._manager.wait_until_finished()
        if is_lead():
            self._sums.drop()

    def close(self) -> None:
        """Waits, then ends the background threads."""
        self._manager.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a full disk is a ValueError of tensorstore
            then = "then start again: the run goes on from the last whole one"
            raise cannot_write(f"checkpoints in {named(self.folder)}", error, then) from error

    def _clean(self) -> None:
        """Removes what a kill has left, and lists what earlier versions did not."""
        if not self.folder.exists():
            return
        for path in self.folder.iterdir():
            if self._ocp.utils.is_tmp_checkpoint(path):  # Orbax fails where two managers do so one after the other
                shutil.rmtree(path)
        self._sums.drop()
        self._sums.adopt()

    def _list_saved(self) -> None:
        """Lists the checkpoint being saved, when its files are written and before it gets its name.

        Called in the background, by the lead alone, when every process has written.
        """
        self._sums.drop()
        partial = (p for p in self.folder.glob(f"{self._saving}.*") if self._ocp.utils.is_tmp_checkpoint(p))
        self._sums.write(self._saving, next(partial, self.folder / str(self._saving)))

    def _check_shapes(self, step: int, wanted: Mapping[str, jax.Array | jax.ShapeDtypeStruct]) -> None:
        """Tells a checkpoint that is whole but of another model.

        Asked only where reading has failed: the descriptions of arrays that this opens, TensorStore never gives back.
        """
        try:
            with _reading():
                tree = self._manager.item_metadata(step)[_STATE].tree
            shapes = {name: tuple(leaf.shape) for name, leaf in tree.items()}
        except Exception:  # damaged, as reading it has reported
            return
        for name, leaf in wanted.items():
            if shapes.get(name, leaf.shape) != leaf.shape:
                raise InputError(
                    f"checkpoint {named(self.folder / str(step))} is whole but of another model: {name} is "
                    f"{shapes[name]} there and {tuple(leaf.shape)} by the run's config and tokenizer; put the run's "
                    "own config.yaml and tokenizer back"
                )

    def _saved(self, state: TrainState) -> dict[str, jax.Array | jax.ShapeDtypeStruct]:
        return named_leaves(state if self._with_frozen else state._replace(frozen=nnx.State({})))

    def _restore(self, step: int, parts: Any) -> Any:
        try:
            with _reading():
                return self._manager.restore(step, args=parts)
        except Exception as error:  # Orbax raises what it likes
            if machine_remedy(error):  # nothing is wrong with the checkpoint
                raise
            raise InputError(
                f"checkpoint {named(self.folder / str(step))} cannot be read; {self.remedy(step)} "
                f"({shown(reason(error))})"
            ) from error


class _NewestAndBest:
    """Orbax's preservation policy: the newest checkpoint, those before it that are due, `keep` in all, and the best."""

    def __init__(self, keep: int, due: Callable[[int], bool]) -> None:
        self.keep = max(keep, 1)
        self.due = due
        self.best: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        return self.preserved([info.step for info in checkpoints])

    def preserved(self, steps: Sequence[int]) -> list[bool]:
        """Which of these steps, ascending, are kept."""
        newest_first = [*steps[-1:], *filter(self.due, reversed(steps[:-1]))]
        kept = {*newest_first[: self.keep], self.best}
        return [step in kept for step in steps]
