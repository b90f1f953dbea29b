"""An object store in a folder, for tests: `shelf://bucket/name`, by fsspec, also in other processes; and a run there.

Its objects are seen when they are written whole; there is no appending, no renaming and no making of folders. The
environment names the folder, and what becomes of the process when an object of a certain name is to be written.
"""

import io
import os
import re
import secrets
import signal
from pathlib import Path

import fsspec
from fsspec.spec import AbstractFileSystem

# KILL and FAIL are regular expressions of names, LAST how many objects a process may write, which it does not survive.
ROOT, KILL, FAIL, LAST = "SHELF_ROOT", "SHELF_KILL", "SHELF_FAIL", "SHELF_LAST"
# A run there.
URL = "shelf://bucket/runs/a"


class Shelf(AbstractFileSystem):
    protocol = "shelf"
    cachable = False

    def _file(self, path: str) -> Path:
        return Path(os.environ[ROOT]) / self._strip_protocol(path).strip("/").replace("/", "%2F")

    def _objects(self) -> dict[str, int]:
        files = (file for file in Path(os.environ[ROOT]).iterdir() if not file.name.startswith("."))
        return {file.name.replace("%2F", "/"): file.stat().st_size for file in files}

    def ls(self, path: str, detail: bool = True, **kwargs):
        prefix = self._strip_protocol(path).strip("/")
        found: dict[str, dict] = {}
        for name, size in self._objects().items():
            if name == prefix:
                found[name] = {"name": name, "size": size, "type": "file"}
            elif name.startswith(f"{prefix}/"):
                rest = name[len(prefix) + 1 :].split("/")
                child = f"{prefix}/{rest[0]}"
                kind = "file" if len(rest) == 1 else "directory"
                found[child] = {"name": child, "size": size if kind == "file" else 0, "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return [found[n] for n in sorted(found)] if detail else sorted(found)

    def _open(self, path: str, mode: str = "rb", **kwargs):
        if mode == "rb":
            return self._file(path).open("rb")
        if mode == "wb":
            return _Written(self._file(path))
        raise NotImplementedError(f"objects are not opened as {mode}")

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs):
        _commit(self._file(path), value, new=mode == "create")

    def rm_file(self, path: str):
        self._file(path).unlink()

    def cp_file(self, path1: str, path2: str, **kwargs):
        raise NotImplementedError("no copying, and so no renaming")


class _Written(io.BytesIO):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def close(self) -> None:
        if not self.closed:
            _commit(self._file, self.getvalue(), new=False)
        super().close()


_written = 0


def _commit(file: Path, content: bytes, new: bool) -> None:
    global _written
    _written += 1
    name = file.name.replace("%2F", "/")
    if _written > int(os.environ.get(LAST, "1000000")):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get(KILL) and re.search(os.environ[KILL], name):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get(FAIL) and re.search(os.environ[FAIL], name):
        raise PermissionError("the token has expired")
    partial = file.with_name(f".{secrets.token_hex(8)}")
    partial.write_bytes(content)
    try:
        if new:
            os.link(partial, file)  # FileExistsError
        else:
            os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def register() -> None:
    """Makes the store known to this process."""
    fsspec.register_implementation("shelf", Shelf, clobber=True)


def objects(shelf: Path) -> dict[str, bytes]:
    """What a run has in the store, without what belongs to the store."""
    files = {file.name.replace("%2F", "/").removeprefix("bucket/runs/a/"): file for file in shelf.iterdir()}
    return {name: file.read_bytes() for name, file in files.items() if not name.startswith(".")}


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def put(folder: Path, moment: int, **files: str) -> None:
    """Writes files, all at one moment, in seconds."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (moment, moment))
