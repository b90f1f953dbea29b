"""A run folder copied to and from object storage, so that what must be whole is whole or not there."""

import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fit_jax.errors import InputError
from fit_jax.files import PARTIAL, write_text
from fit_jax.foreign import named
from fit_jax.runs.remote_store import LOCK as REMOTE_LOCK
from fit_jax.runs.remote_store import RemoteStore
from fit_jax.runs.run_folder import CARD, CHECKPOINTS, LOCK, TOKENIZER
from fit_jax.sums import WHOLE, dump_listing, is_as_listed, list_folder, parse_listing

# Tells that a URL holds a run folder as this module writes it.
FORMAT = ".remote-run"
_WHOLE_FOLDERS = (TOKENIZER, "adapter")
_SETTLED = 20_000_000  # nanoseconds by which a file system's clock may be behind


class _File(NamedTuple):
    size: int
    changed: int  # nanoseconds


# The files of a unit: a folder that is whole or not there, or a file of its own, whose only name is "".
_Unit = dict[str, _File]


class Mirror:
    """Copies a run folder from a store and what is new in it back."""

    def __init__(self, store: RemoteStore, folder: Path) -> None:
        """Knows nothing of the store yet; `folder` is empty, and beside it can be written."""
        self._store = store
        self._folder = folder
        self._sent: dict[str, _Unit] = {}
        self._seen: dict[str, _Unit] = {}  # by the scan before
        self._there: set[str] = set()  # units of which the store may hold something

    def fetch(self) -> None:
        """Copies what is whole into the folder.

        Raises:
            InputError: The store holds something else, or what was whole is damaged.
        """
        names = self._store.names() - {REMOTE_LOCK}
        if names and FORMAT not in names:
            raise InputError(
                f"{self._store.url}: holds files, but none that a run has written there; copy them to a folder of this "
                "machine and name that, or choose another run_dir"
            )
        for name in sorted(names - {FORMAT}):
            unit = _unit_of(name)
            self._there.add(unit.removesuffix(WHOLE))
            if name.endswith(WHOLE):
                self._fetch_whole(name.removesuffix(WHOLE))
            elif unit == name:
                try:
                    self._store.fetch(name, self._folder / name)
                except FileNotFoundError as error:
                    raise InputError(f"{self._store.url}/{name}: has gone while it was read; try again") from error
        self._sent, _ = self._scan()

    def take_up(self) -> None:
        """Makes the folder's content, which is what the store holds or goes on from it, the one that is sent."""
        names = self._store.names() - {REMOTE_LOCK, FORMAT}
        self._there = {_unit_of(name).removesuffix(WHOLE) for name in names}
        for name, unit in self._scan()[0].items():
            if name + WHOLE not in names:
                continue
            try:
                sent = parse_listing(self._store.read(name + WHOLE))
                if _is_checkpoint(name):
                    same = parse_listing((self._folder / f"{name}{WHOLE}").read_bytes()).items() <= sent.items()
                else:  # sending it again would take it out of the store for a moment, beside its checkpoints
                    same = list_folder(self._folder / name) == sent
            except (OSError, ValueError):
                continue
            if same:
                self._sent[name] = unit

    def newer_steps(self) -> list[int]:
        """Steps of checkpoints in the folder that are after all of the store's, of the same stage."""
        newest: dict[str, int] = {}
        for name in self._store.names():
            stage, _, step = name.removesuffix(WHOLE).rpartition("/")
            if name.endswith(WHOLE) and _is_checkpoint(f"{stage}/{step}"):
                newest[stage] = max(int(step), newest.get(stage, -1))
        here = (name.rpartition("/") for name in self._scan()[0] if _is_checkpoint(name))
        return sorted(int(step) for stage, _, step in here if int(step) > newest.get(stage, -1))

    def send(self, last: bool) -> None:
        """Copies what is new and whole to the store, and then deletes there what is gone here.

        What a kill leaves in the store is what the folder was at an earlier moment: files go in the order in which
        they were written, the metrics, of which a run needs as many as its checkpoint tells, first.

        Args:
            last: Whether nothing is being written any more.

        Raises:
            InputError: The store cannot be written.
        """
        settled = time.time_ns() - _SETTLED
        found, whole = self._scan()
        before, self._seen = self._seen, found
        if CARD in self._there and found.get(CARD) != self._sent.get(CARD, {}):
            self._forget(CARD)  # says that the report is whole and of the last checkpoint
        for name in sorted(
            found, key=lambda n: (not _is_log(n), max((f.changed for f in found[n].values()), default=0))
        ):
            unit = found[name]
            if self._sent.get(name) == unit or (name in self._sent and _is_checkpoint(name)):
                continue  # a checkpoint changes only while it is being deleted
            if "" in unit:
                if not last and not _is_log(name) and unit[""].changed >= settled:
                    break  # written since the scan began, which may have missed what came before
                sent = self._send_file(name)
            else:
                sent = self._send_whole(name, unit, last or before.get(name) == unit)
            if not sent:
                whole = False
                break
            self._there.add(name)
            self._sent[name] = unit
        if last and not whole:
            raise InputError(
                f"{named(self._folder)}: changed while it was copied to {self._store.url}; keep others out of it"
            )
        if whole:
            for name in sorted(self._there - found.keys()):
                self._forget(name)

    def _send_file(self, name: str) -> bool:
        try:
            self._store.send(self._folder / name, name)
        except FileNotFoundError:
            return False
        return True

    def _send_whole(self, name: str, unit: _Unit, steady: bool) -> bool:
        """Sends a folder; whether it was whole, and not one that is just being deleted."""
        with TemporaryDirectory(dir=self._folder.parent) as scratch:  # of the same file system, for links
            copy = Path(scratch) / "copy"
            try:  # links, which stay when Orbax deletes the checkpoint meanwhile
                shutil.copytree(self._folder / name, copy, copy_function=os.link)
            except OSError:
                return False
            if not steady and not self._is_newest(name):
                return False
            if {str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file()} != unit.keys():
                return False
            try:  # a checkpoint's own tells what was written, not what a bad disk has made of it since
                listing = parse_listing((self._folder / f"{name}{WHOLE}").read_bytes())
            except (OSError, ValueError):
                listing = {}
            listing |= list_folder(copy, lambda relative: relative not in listing)
            self._remove(name)
            for relative in sorted(unit):
                self._store.send(copy / relative, f"{name}/{relative}")
        self._store.write(name + WHOLE, dump_listing(listing).encode())
        return True

    def _forget(self, name: str) -> None:
        self._remove(name)
        self._there.discard(name)
        self._sent.pop(name, None)

    def _is_newest(self, name: str) -> bool:
        """Whether it is a checkpoint that no newer one has made superfluous."""
        path = self._folder / name
        steps = [int(other.name) for other in path.parent.iterdir() if other.name.isdecimal()]
        return _is_checkpoint(name) and int(path.name) == max(steps, default=-1)

    def _remove(self, name: str) -> None:
        self._store.remove(name + WHOLE)
        for other in sorted(self._store.names()):
            if other == name or other.startswith(f"{name}/"):
                self._store.remove(other)

    def _fetch_whole(self, unit: str) -> None:
        try:
            listing = parse_listing(self._store.read(unit + WHOLE))
            for relative, wanted in listing.items():
                path = self._folder / unit / relative
                self._store.fetch(f"{unit}/{relative}", path)
                if not is_as_listed(path, wanted):
                    raise ValueError(f"{relative} is not what was written")
            if _is_checkpoint(unit):
                write_text(self._folder / f"{unit}{WHOLE}", dump_listing(listing))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise InputError(
                f"{self._store.url}/{unit}: is damaged ({reason}); put it back from a copy, or move it and "
                f"{unit}{WHOLE} out of the run to go on without"
            ) from error

    def _scan(self) -> tuple[dict[str, _Unit], bool]:
        """The units of the folder, and whether nothing vanished meanwhile."""
        found: dict[str, _Unit] = {}
        calm: list[OSError] = []
        for place, folders, files in os.walk(self._folder, onerror=calm.append):
            folders[:] = [name for name in folders if not name.startswith(PARTIAL)]
            for file in files:
                path = Path(place, file)
                name = path.relative_to(self._folder).as_posix()
                unit = _unit_of(name)
                cut_off = CHECKPOINTS in Path(name).parts and not _is_checkpoint(unit)
                if file == LOCK or file.startswith(PARTIAL) or cut_off:
                    continue
                try:
                    status = path.stat()
                except FileNotFoundError as error:
                    calm.append(error)
                    continue
                relative = name[len(unit) + 1 :]
                found.setdefault(unit, {})[relative] = _File(status.st_size, status.st_mtime_ns)
        return found, not calm


def _unit_of(name: str) -> str:
    """The folder that is whole or not there in which a file stands, or else the file itself."""
    parts = name.split("/")
    for end in range(1, len(parts)):
        folder = "/".join(parts[:end])
        if parts[end - 1] in _WHOLE_FOLDERS or _is_checkpoint(folder):
            return folder
    return name


def _is_checkpoint(name: str) -> bool:
    parts = name.split("/")
    return len(parts) > 1 and parts[-2] == CHECKPOINTS and parts[-1].isdecimal()


def _is_log(name: str) -> bool:
    return name.endswith("metrics.jsonl") or "tensorboard" in name.split("/")
