"""SHA-256 of files: what belongs to a folder that must be whole is listed beside it, in `NAME.whole`."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from fit_jax.foreign import parse_json, shown

# What the name of a listing has after that of its folder.
WHOLE = ".whole"
# Files from so many bytes on are not read again while the file system says that nobody has touched them.
LARGE = 1 << 26
# Nanoseconds after which a change gives a file another time, however coarse the file system's clock is.
SETTLED = 2 * 10**9


class Sum(NamedTuple):
    """What a file of a listing must be."""

    size: int
    digest: str


Listing = dict[str, Sum]


def digest(path: Path) -> str:
    """The SHA-256 of a file, which is read piece by piece; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_folder(folder: Path, holds: Callable[[str], bool] = lambda name: True) -> Listing:
    """The files of a folder and of those in it, by their relative names, as far as they are wanted; raises OSError."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(filter(holds, found))
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        digests = pool.map(digest, map(found.__getitem__, names))
        return {name: Sum(found[name].stat().st_size, sha) for name, sha in zip(names, digests)}


def dump_listing(listing: Listing) -> str:
    """The text of a `NAME.whole`."""
    return json.dumps(listing)


def parse_listing(text: str | bytes) -> Listing:
    """Reads what `dump_listing` gave.

    Raises:
        ValueError: It is no listing, or has a name that leads out of the folder.
    """
    values: Any = parse_json(text if isinstance(text, str) else text.decode())
    if not isinstance(values, dict):
        raise ValueError("no list of files")
    for name, value in values.items():
        if ".." in Path(name).parts or Path(name).is_absolute() or "\0" in name:
            raise ValueError(f"{shown(name)!r} leads out of it")
        if not isinstance(value, list) or list(map(type, value)) != [int, str]:
            raise ValueError(f"{shown(name)} lacks size or sum")
    return {name: Sum(*value) for name, value in values.items()}


def is_as_listed(path: Path, wanted: Sum) -> bool:
    """Whether a file is there and what it was when it was listed."""
    try:
        return path.stat().st_size == wanted.size and digest(path) == wanted.digest
    except OSError:
        return False


def first_unlike(folder: Path, listing: Mapping[str, Sum], names: Iterable[str]) -> str | None:
    """The first of these files of a listing that is gone or not what it was; None where all are as listed."""
    names = list(names)
    with ThreadPoolExecutor() as pool:
        same = pool.map(lambda name: is_as_listed(folder / name, listing[name]), names)
        return next((name for name, fits in zip(names, same) if not fits), None)


class Digests:
    """SHA-256 of files, of which large ones are not read again while nothing has touched them.

    Attributes:
        kept: Of each large file that was asked for: its stamp and its digest, as JSON takes them, to be given to
            the next `Digests`.
    """

    def __init__(self, known: Mapping[str, object]) -> None:
        """`known` is what an earlier one kept; what is none of that is passed over."""
        self._known = known
        self.kept: dict[str, object] = {}

    def of(self, path: Path) -> str:
        """The file's digest; raises OSError."""
        status = path.stat()
        if status.st_size < LARGE:
            return digest(path)
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino]
        name, settled = str(path.absolute()), time.time_ns() - changed > SETTLED
        known = self._known.get(name)
        if isinstance(known, list) and len(known) == 2 and known[0] == stamp and isinstance(known[1], str):
            found = known[1]
        else:
            found = digest(path)
        if settled:
            self.kept[name] = [stamp, found]
        return found
