"""Objects below a URL (`gs://bucket/run`): read, written whole, and a lock that one process holds."""

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fit_jax.errors import InputError
from fit_jax.foreign import shown

LOCK = ".remote-lock"


class RemoteStore:
    """The objects below a URL, by fsspec; names are relative to it and hold slashes, for there are no folders."""

    def __init__(self, url: str) -> None:
        """Opens the place; nothing need be there.

        Raises:
            InputError: The file system cannot be set up.
        """
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        with self._reporting("opened"):
            self._fs, self._root = url_to_fs(self.url)

    def names(self) -> set[str]:
        """All objects.

        Raises:
            InputError: They cannot be listed, or one has a name that would lead out of a folder.
        """
        with self._reporting("listed"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._root) if self._fs.exists(self._root) else []
        prefix = self._root.rstrip("/") + "/"
        names = {path.removeprefix(prefix) for path in map(str, found) if path.startswith(prefix)}
        names = {name for name in names if name and not name.endswith("/")}  # some mark a folder by an object
        for name in names:
            if {"..", "", "."} & set(name.split("/")) or "\\" in name:
                raise InputError(f"{self.url}: holds an object named {name[:80]!r}; choose another run_dir")
        return names

    def read(self, name: str) -> bytes:
        """An object's content; errors as `fetch`."""
        with self._reporting(f"read ({name})", FileNotFoundError):
            return self._fs.cat_file(self._path(name))

    def write(self, name: str, content: bytes) -> None:
        """Writes a small object.

        Raises:
            InputError: It cannot be written.
        """
        with self._reporting(f"written ({name})"):
            self._fs.pipe_file(self._path(name), content)

    def fetch(self, name: str, path: Path) -> None:
        """Copies an object into a file.

        Raises:
            FileNotFoundError: It is not there, perhaps no longer.
            InputError: It cannot be read.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._reporting(f"read ({name})", FileNotFoundError):
            self._fs.get_file(self._path(name), str(path))

    def send(self, path: Path, name: str) -> None:
        """Copies a file into an object.

        Raises:
            FileNotFoundError: The file has gone.
            InputError: The object cannot be written.
        """
        path.stat()  # whatever a library makes of a file that has gone
        with self._reporting(f"written ({name})"):
            self._fs.put_file(str(path), self._path(name))

    def remove(self, name: str) -> None:
        """Deletes an object, where it is there."""
        with self._reporting(f"deleted ({name})"), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small object if there is none of that name; whether it has. Errors as `write`."""
        with self._reporting(f"written ({name})"):
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _reporting(self, done: str, *meant: type[Exception]) -> Iterator[None]:
        try:
            yield
        except meant:
            raise
        except Exception as error:  # each library has its own
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise InputError(
                f"{self.url}: cannot be {done}: {reason}; see to the credentials and the connection, then start the "
                "same command again"
            ) from error


class RemoteLock:
    """A lock by an object that is created only where there is none, with a sign of life of its holder."""

    def __init__(self, store: RemoteStore, beat: float = 10.0, dead: float = 60.0) -> None:
        """Takes the lock, also of a holder that shows no life any more or was a process of this machine.

        Args:
            store: Where it is.
            beat: Seconds between two signs of life.
            dead: Seconds without one after which a holder is taken for dead.

        Raises:
            InputError: Another process holds it, or the file system cannot create an object only if there is none.
        """
        self._store = store
        self._every, self._dead = beat, dead
        self._beats = 0
        self._owner = {"owner": secrets.token_hex(8), "process": os.getpid(), "host": socket.gethostname()}
        self._owner["place"] = _place()
        taken_over = False
        while not store.create(LOCK, self._content()):
            self._await_end(self._read())
            taken_over = True
        if store.create(LOCK, self._content()):
            store.remove(LOCK)
            raise InputError(f"{store.url}: overwrites what it is to create, so no process can hold it; mount it")
        if taken_over:  # another process may have found the same one dead, and removed this lock for that one's
            time.sleep(beat / 10)
            if not self._is_ours():
                raise InputError(f"{store.url}: another process has just begun there; wait for it")
        self._ended = threading.Event()
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._beat, daemon=True, name="remote lock")
        self._thread.start()

    def check(self) -> None:
        """Raises InputError where another process has taken the lock, as after a long time without network."""
        if self._lost is not None:
            raise InputError(
                f"{self._store.url}: another process has taken it over; start the same command again when that one is "
                "done"
            ) from self._lost

    def release(self) -> None:
        """Lets the lock go, where it is still this process's."""
        self._ended.set()
        self._thread.join()
        with suppress(InputError):
            if self._is_ours():
                self._store.remove(LOCK)

    def _content(self) -> bytes:
        return json.dumps(self._owner | {"beats": self._beats}).encode()

    def _read(self) -> bytes:
        try:
            return self._store.read(LOCK)
        except FileNotFoundError:
            return b""

    def _is_ours(self) -> bool:
        return _parsed(self._read()).get("owner") == self._owner["owner"]

    def _await_end(self, seen: bytes) -> None:
        """Waits until the lock's holder has let go or is dead, and then removes the lock."""
        holder = _parsed(seen)
        if not _has_ended(holder):
            who = f"process {holder.get('process')} on {holder.get('host')}"[:80]
            print(f"{self._store.url}: locked by {shown(who)}; looks for a sign of life", file=sys.stderr, flush=True)
            end = time.monotonic() + self._dead
            while (now := self._read()) == seen and time.monotonic() < end:
                time.sleep(self._every / 10)
            if now and now != seen:
                raise InputError(
                    f"{self._store.url}: another process is at work there ({shown(who)}); wait for it, or choose "
                    "another run_dir"
                )
        if self._read() == seen:
            self._store.remove(LOCK)

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self._beats += 1
            with suppress(InputError):  # a connection that is lost comes back, or nothing can be sent at the end
                if not self._is_ours():
                    self._lost = RuntimeError("the lock has another owner")
                    return
                self._store.write(LOCK, self._content())


def _place() -> str:
    """What tells this machine since its start, and its numbering of processes, from any other."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return secrets.token_hex(8)


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    number = holder.get("process")
    if holder.get("place") != _place() or not isinstance(number, int) or number < 1:
        return False
    return not Path(f"/proc/{number}").exists()


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
