"""A run folder behind a URL: a working copy on this machine, which is copied there while the command works.

Object stores know no folders, renaming or appending, and Orbax, TensorBoard and the log live by these. So all work is
done in a local folder. An object is written whole or not at all; of a folder that must be whole, such as a checkpoint,
an object `NAME.whole` tells what belongs to it, and is written last and deleted first.
"""

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fit_jax.errors import InputError
from fit_jax.files import check_run_folder, is_url, stands_for
from fit_jax.runs.remote_mirror import FORMAT, Mirror
from fit_jax.runs.remote_store import RemoteLock, RemoteStore
from fit_jax.runs.run_folder import LOCK, held

_EVERY = 10.0  # seconds between two copies
# The working copy's folder, and a file that holds what the store's `FORMAT` does while nobody else writes there.
_RUN, _MARK = "run", "mark"
_TRIES = 3  # of a reader, whose checkpoints may be replaced meanwhile


@contextmanager
def working_folder(name: str, what: str = "RUN", writes: bool = True) -> Iterator[Path]:
    """The folder in which a command works: the one that is named, or the working copy of the one behind a URL.

    Args:
        name: A folder's, or a URL.
        what: What errors call it.
        writes: Whether the command writes. Then no other may work there, and what it has written is behind the URL
            when the context ends, also by an error; a process that is killed has lost seconds of it.

    Raises:
        InputError: The URL is none that can hold a run, this is one of several processes, another process is at work
            there, what it holds is damaged or no run folder, or it cannot be reached.
    """
    if not is_url(name):
        yield Path(name)
        return
    check_run_folder(name, what)
    from fit_jax.parallel.processes import is_one_of_many  # JAX

    if is_one_of_many():
        raise InputError(
            f"{what}: {name[:80]}: several processes need a folder that all of them see; mount the storage and "
            "name the mounted folder"
        )
    store = RemoteStore(name)
    if not writes:
        with TemporaryDirectory(prefix="fit_jax-") as scratch:
            yield _read_copy(store, Path(scratch))
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    place = Path(home) / "fit_jax" / "remote" / hashlib.sha256(store.url.encode()).hexdigest()[:16]
    folder = place / _RUN
    lock = RemoteLock(store)
    try:
        mirror = _taken_up(store, place) or _fetched(store, place)
        print(f"{store.url}: works in {folder}, copied there every {_EVERY:.0f} s", flush=True)
        with _sending(mirror, lock, folder), stands_for(folder, name):
            yield folder
        print(f"{store.url}: holds all of it", flush=True)
    finally:
        lock.release()


def _taken_up(store: RemoteStore, place: Path) -> Mirror | None:
    """The working copy that a process left which was killed or could not reach the store, where that is still its.

    One that is behind what is in the store is removed; one that is not, while others have written there, is kept.

    Raises:
        InUse: A process that could not reach the store for long is still at work in it.
    """
    folder, mark = place / _RUN, place / _MARK
    if (folder / LOCK).exists():
        with held(folder):  # else a process of this machine that the store took for dead is at work in it
            pass
    if folder.exists() and mark.exists():
        mirror = Mirror(store, folder)
        if FORMAT in store.names() and store.read(FORMAT) == mark.read_bytes():
            mirror.take_up()
            print(f"{store.url}: takes up what an earlier process has left in {folder}", flush=True)
            return mirror
        if steps := mirror.newer_steps():
            aside = place.with_name(f"{place.name}-{secrets.token_hex(4)}")
            place.rename(aside)
            print(
                f"warning: {store.url}: others have written there since a process of this machine was cut off; its "
                f"checkpoint of step {max(steps)}, which is not there, is kept in {aside / _RUN}",
                flush=True,
            )
    shutil.rmtree(place, ignore_errors=True)
    return None


def _fetched(store: RemoteStore, place: Path) -> Mirror:
    """A new working copy, marked as the one that writes to the store from now on."""
    folder, mark = place / _RUN, f"1 {secrets.token_hex(8)}\n".encode()
    folder.mkdir(parents=True)
    mirror = Mirror(store, folder)
    mirror.fetch()
    (place / _MARK).write_bytes(mark)
    store.write(FORMAT, mark)
    return mirror


def _read_copy(store: RemoteStore, scratch: Path) -> Path:
    for number in range(_TRIES):
        folder = scratch / str(number)
        folder.mkdir()
        try:
            Mirror(store, folder).fetch()
            return folder
        except InputError:
            if number == _TRIES - 1:
                raise
            shutil.rmtree(folder)
    raise AssertionError("unreachable")


@contextmanager
def _sending(mirror: Mirror, lock: RemoteLock, folder: Path) -> Iterator[None]:
    """Sends what is new every few seconds and at the end, and then removes the working copy."""
    ended = threading.Event()

    def work() -> None:
        failed = False
        while not ended.wait(_EVERY):
            try:
                lock.check()
                mirror.send(last=False)
                failed = False
            except Exception as error:
                if not failed:
                    print(f"warning: {error}\nwarning: the run goes on in {folder}", flush=True)
                failed = True

    thread = threading.Thread(target=work, daemon=True, name="remote folder")
    thread.start()
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    finally:
        ended.set()
        thread.join()
    try:
        lock.check()
        mirror.send(last=True)
    except InputError as error:
        reason = f"{error} (what is not there yet is in {folder}, which the next start on this machine takes up)"
        raise InputError(reason) from failure or error
    shutil.rmtree(folder.parent, ignore_errors=True)
    if failure is not None:
        raise failure
