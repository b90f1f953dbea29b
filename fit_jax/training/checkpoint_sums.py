"""The sums of checkpoints: `STEP.whole` beside each, with size and SHA-256 of its files."""

from collections.abc import Sequence
from pathlib import Path

import jax

from fit_jax.errors import InputError
from fit_jax.files import write_text
from fit_jax.foreign import named, read_text
from fit_jax.parallel.processes import are_alike, is_lead, maximum_over_processes
from fit_jax.sums import WHOLE, dump_listing, first_unlike, list_folder, parse_listing

# Remedies for a damaged checkpoint that is one of several, and for the only one.
_ASIDE = "put it back from a copy, or move that folder out of the run to go on from the one before"
_ONLY = "put it back from a copy, or train again in another run_dir"
# That for a damaged list, which says nothing against its checkpoint.
_UNLISTED = "put it back from a copy, or move that one file out of the run to go on with the checkpoint unchecked"


class CheckpointSums:
    """Lists the files of the checkpoints of a folder, and holds them against their lists."""

    def __init__(self, folder: Path, parts: Sequence[str]) -> None:
        """`parts` are the folders of a checkpoint whose files are listed; what stands beside them holds no data."""
        self._folder = folder
        self._parts = tuple(f"{part}/" for part in parts)

    def write(self, step: int | str, files: Path) -> None:
        """Lists the files of a checkpoint, which may lie in a folder that does not yet bear its name.

        Raises:
            InputError: The list cannot be written.
        """
        listing = list_folder(files, lambda name: name.startswith(self._parts))
        write_text(self._of(step), dump_listing(listing))

    def drop(self) -> None:
        """Removes the lists of checkpoints that are gone."""
        for path in self._folder.glob(f"*{WHOLE}"):
            if not path.with_suffix("").exists():
                path.unlink(missing_ok=True)

    def adopt(self) -> None:
        """Lists, as they are now, the checkpoints that have no list, and says so."""
        unlisted = [p for p in self._folder.iterdir() if p.name.isdecimal() and not self._of(p.name).exists()]
        if unlisted:
            steps = ", ".join(sorted((path.name for path in unlisted), key=int))
            _say(f"checkpoint {steps} in {self._folder} has no sums, as earlier versions left it; it is taken as it is")
        for path in unlisted:
            self.write(path.name, path)

    def check(self, step: int, below: str = "") -> None:
        """Holds files of a checkpoint against its list; of several processes, each reads a part for all.

        A checkpoint without a list cannot be checked, which is said where all of it is asked for.

        Args:
            step: Its step.
            below: How their names begin.

        Raises:
            InputError: One is not what was written, or the list is damaged.
        """
        path, folder = self._of(step), self._folder / str(step)
        listing = {}
        if path.exists():
            try:
                listing = parse_listing(read_text(path, _UNLISTED))
                if not all(any(name.startswith(part) for name in listing) for part in self._parts):
                    raise ValueError("it lacks files")
            except ValueError as error:
                raise InputError(f"{named(path)}: is damaged ({error}); {_UNLISTED}") from error
        elif folder.exists() and not below and is_lead():
            _say(f"checkpoint {named(folder)} has no sums: whether it is what was written cannot be checked")
        names = sorted(name for name in listing if name.startswith(below))
        if not are_alike(len(names)):
            raise InputError(
                f"{named(path)}: not all processes see the same; let all see one folder, or start again when its "
                "storage has caught up"
            )
        wrong = first_unlike(folder, listing, names[jax.process_index() :: jax.process_count()])
        ((number,),) = maximum_over_processes([[-1 if wrong is None else names.index(wrong)]])
        if number >= 0:
            raise InputError(
                f"checkpoint {named(folder)} is damaged: {names[number]} is not what was written; {self.remedy(step)}"
            )

    def remedy(self, step: int) -> str:
        """What to do about a damaged checkpoint: nothing is to be deleted, for the fault may lie elsewhere."""
        others = any(path.name.isdecimal() and path.name != str(step) for path in self._folder.iterdir())
        return _ASIDE if others else _ONLY

    def _of(self, step: int | str) -> Path:
        return self._folder / f"{step}{WHOLE}"


def _say(note: str) -> None:
    print(f"note: {note}", flush=True)
