"""Files that are there whole or not at all, whatever moment the process or the machine stops."""

import errno
import fcntl
import glob
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fit_jax.errors import InputError, cannot_write, full_disk
from fit_jax.foreign import named

# Bytes of one name and of a whole path that file systems take.
_LONGEST_NAME, _LONGEST_PATH = 255, 4000
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# Schemes that fsspec opens but that cannot be written to, or are no place that outlives the process.
_NO_STORE = ("http", "https", "file", "local", "memory", "data", "zip", "tar", "git", "github", "hf", "reference")
# How the name of a file or folder begins while it is written; `remove_partials` clears away what a kill has left.
PARTIAL = ".partial-"
# What file systems without hard links say of one.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
# The working copies of this process, and the URLs that they stand for.
_COPIES: dict[str, str] = {}


def check_folder_name(name: str, what: str) -> None:
    """Checks that a folder of that name can be on a file system of this machine; looks at the name alone.

    A bucket is none: its objects are not renamed, locked or appended to; `check_run_folder` knows who can do without.

    Args:
        name: As the user gave it.
        what: What errors call it, such as the option's name.

    Raises:
        InputError: It cannot, or is a URL (`gs://...`), which would quietly become a folder of that name here.
    """
    if not name.strip():
        raise InputError(f"{what}: is empty; name a folder")
    if set(name) & set("\\\0"):  # TensorStore takes a backslash for a slash
        raise InputError(f"{what}: {name[:100]!r} holds a backslash or a NUL; name a folder without")
    if _SCHEME.match(name) or "://" in name:
        raise InputError(
            f"{what}: {name[:100]} is a URL; mount the storage (a bucket with Cloud Storage FUSE, or an NFS share) and "
            "name the mounted folder"
        )
    try:
        longest = max(len(part.encode()) for part in name.split("/"))
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: {name[:100]!r} is no text in UTF-8; name a folder that is") from error
    if longest > _LONGEST_NAME or len(name.encode()) > _LONGEST_PATH:
        raise InputError(f"{what}: {name[:40]}... is longer than file names may be; take a shorter name")


def is_url(name: str) -> bool:
    """Whether a run folder is named by a URL and not by its place on this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.:-]+://", name) is not None


def check_run_folder(name: str, what: str) -> None:
    """Checks the name of a run folder of this machine, or behind a URL that fsspec can write to.

    Raises:
        InputError: As `check_folder_name`, or the URL's scheme is unknown, cannot hold a run or lacks its library.
    """
    if not is_url(name):
        check_folder_name(name, what)
        return
    from fsspec.registry import get_filesystem_class

    check_folder_name(name.replace("://", "/", 1), what)
    scheme, _, rest = name.partition("://")
    remedy = "mount the storage and name the mounted folder"
    if scheme in _NO_STORE or "::" in name:
        raise InputError(f"{what}: {name[:80]} cannot hold a run; name a bucket or a folder of this machine")
    if not rest.strip("/") or {"", ".", ".."} & set(rest.rstrip("/").split("/")):
        raise InputError(f"{what}: {name[:80]} names no place; write {scheme}://BUCKET/RUN")
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        reason = " ".join(str(error).split())[:60]
        raise InputError(f"{what}: {name[:60]} needs a library ({reason}); install it, or {remedy}") from error
    except ValueError as error:
        raise InputError(f"{what}: {name[:80]}: fsspec knows no {scheme}://; {remedy}") from error


@contextmanager
def stands_for(copy: Path, url: str) -> Iterator[None]:
    """While this lasts, the folder is the working copy of what is behind the URL."""
    _COPIES[str(copy)] = url.rstrip("/")
    try:
        yield
    finally:
        del _COPIES[str(copy)]


def asked_name(folder: str) -> str:
    """What a folder is to be called in what is kept and published: a working copy, or a folder in one, by its URL."""
    for copy, url in _COPIES.items():
        if Path(folder).is_relative_to(copy):
            return url + folder.removeprefix(copy)
    return folder


def check_outputs(folder: Path, files: Iterable[str], folders: Iterable[str]) -> None:
    """Checks that what a command will write in a folder can be written, before any work is spent.

    Args:
        folder: The folder; it exists.
        files: Names of files in it, which may be there already.
        folders: Names of folders in it, likewise.

    Raises:
        InputError: Something else stands in a file's or folder's place, or it may not be written.
    """
    for names, is_kind, kind in ((files, stat.S_ISREG, "file"), (folders, stat.S_ISDIR, "folder")):
        for name in names:
            path = folder / name
            try:
                if kind == "file" and path.is_symlink() and path.exists():  # what it leads to is nobody's to write over
                    raise InputError(f"{named(path)}: is a symbolic link; move it away")
                if not is_kind(path.stat().st_mode):
                    raise InputError(f"{named(path)}: is no {kind}; move it away")
            except FileNotFoundError:
                if path.is_symlink():
                    raise InputError(f"{named(path)}: is a broken symbolic link; move it away") from None
                continue
            except OSError as error:
                raise InputError(f"{named(path)}: {error.strerror}; move it away") from error
            if not os.access(path, os.R_OK | os.W_OK | (os.X_OK if kind == "folder" else 0)):
                raise InputError(f"{named(path)}: may not be read and written; change its permissions, or move it away")


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Meanwhile an error of a full disk that names no file, as writing to an open one gives it, names the folder.

    Raises:
        InputError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if full_disk(error) and error.filename is None:
            raise cannot_write(f"in {named(folder)}", error, "then start the same command again") from error
        raise


def remove_partials(folder: Path) -> None:
    """Removes files and folders that a killed process was writing; for the one process that may write there."""
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Creates a folder for results and checks that files can be written in it.

    Raises:
        InputError: It cannot be created or written to.
    """
    probe = folder / _partial_name("")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # who has the folder's lock may have removed it among a killed process's files
    except OSError as error:
        raise InputError(f"cannot write to {named(folder)}: {error.strerror}; choose a writable folder") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`, which it becomes when the block ends well; after an error nothing is left.

    What a process that was killed has left is removed by the next one that makes the same folder.

    Raises:
        InputError: `folder` exists already and holds something, or cannot be made.
    """
    there = InputError(f"{named(folder)}: exists already; name a new folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise there
    prefix = f"{PARTIAL}{folder.name[:50]}-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{glob.escape(prefix)}*"):
            _remove_left(left)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        holder = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(named(folder), error) from error
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield partial
        partial.chmod(0o755)  # mkdtemp's folders are private
        try:  # another process may have made it meanwhile; an empty folder gives way
            os.rename(partial, folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise there from error
            raise cannot_write(named(folder), error) from error
    finally:
        os.close(holder)
        shutil.rmtree(partial, ignore_errors=True)


def _remove_left(folder: Path) -> None:
    """Removes a folder that no process is filling, as its lock tells."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in place in one step, safely on the disk.

    Raises:
        InputError: The disk is full, or the file may not be written.
    """
    partial = path.with_name(_partial_name(path.suffix))
    try:
        write(partial)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {named(path)}: {error.strerror or error}; free space, or choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    replace_with(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_new(path: Path, text: str) -> None:
    """Writes a text file that must not be there yet, whole or not at all; of two that write it, the later is refused.

    Raises:
        InputError: It is there already, or cannot be written.
    """
    partial = path.with_name(_partial_name(""))
    try:
        partial.write_text(text, encoding="utf-8")
        _sync(partial)
        try:
            os.link(partial, path)  # a rename would replace what is there
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            os.replace(partial, path)
        _sync(path.parent)
    except FileExistsError as error:
        raise there_already(path) from error
    except OSError as error:
        raise cannot_write(named(path), error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def there_already(path: Path) -> InputError:
    """The error of a new file whose name is taken."""
    return InputError(f"{named(path)}: is there already; nothing is overwritten, choose another name")


def _partial_name(suffix: str) -> str:
    """A name that no other process takes at the same time."""
    return f"{PARTIAL}{secrets.token_hex(8)}{suffix}"


def _sync(path: Path) -> None:
    """Waits until the disk holds what was written to a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
