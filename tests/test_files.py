"""Files whole or not at all, and names and places that can hold no run."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fit_jax.errors import InputError, explain
from fit_jax.files import (
    PARTIAL,
    check_folder_name,
    check_outputs,
    check_run_folder,
    make_folder,
    naming_full_disk,
    new_folder,
    remove_partials,
    replace_with,
    write_new,
    write_text,
)


@pytest.mark.parametrize("name", ["runs/a", "/mnt/a b", "a:b", "x" * 255, "é/ü", "C:/runs"])
def test_names_of_folders(name):
    check_folder_name(name, "run_dir")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gs://bucket/run", "is a URL; mount the storage"),
        ("gs:/bucket/run", "is a URL"),
        ("://run", "is a URL"),
        ("http://host/run", "is a URL"),
        ("s3://", "is a URL"),
        (" ", "is empty"),
        ("a\0b", "backslash or a NUL"),
        ("a\\b", "backslash or a NUL"),
        ("x" * 300, "longer than file names may be"),
        ("é" * 128, "longer than file names may be"),
        ("x/" * 2100, "longer than file names may be"),
        ("a\udcff", "no text in UTF-8"),
    ],
)
def test_names_that_no_folder_here_has(name, said):
    with pytest.raises(InputError, match=f"^run_dir: .*{said}") as error:
        check_folder_name(name, "run_dir")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gs:/bucket/run", "is a URL"),
        ("http://host/run", "cannot hold a run"),
        ("memory://run", "cannot hold a run"),
        ("simplecache::s3://b/r", "cannot hold a run"),
        ("nowhere://host/run", "fsspec knows no nowhere://"),
        ("nowhere://", "names no place"),
        ("nowhere://b/../x", "names no place"),
        ("dropbox://a/run", "needs a library"),
        ("nowhere://b/" + "x" * 300, "longer than file names may be"),
    ],
)
def test_urls_that_hold_no_run(name, said):
    with pytest.raises(InputError, match=f"^run_dir: .*({said})") as error:
        check_run_folder(name, "run_dir")
    assert len(str(error.value)) < 300


def test_outputs_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    check_outputs(tmp_path, ("file", "new"), ("folder", "other"))
    for files, folders, said in (
        (("folder",), (), "folder: is no file; move it away"),
        ((), ("file",), "file: is no folder; move it away"),
        (("loop",), (), "loop: Too many levels of symbolic links; move it away"),
        ((), ("dangling",), "dangling: is a broken symbolic link"),
    ):
        with pytest.raises(InputError, match=said):
            check_outputs(tmp_path, files, folders)


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """Both write in full; the last one stays, and no partial file does."""
    path = tmp_path / "file.txt"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_text(path, f"{n}" * 100_000), range(8)))
    assert set(path.read_text()) in [{str(n)} for n in range(8)]
    assert os.listdir(tmp_path) == ["file.txt"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    names = []
    replace_with(tmp_path / "a.svg", lambda partial: names.append(partial.name) or partial.touch())
    make_folder(tmp_path / "sub")
    (tmp_path / names[0]).touch()
    (tmp_path / f"{PARTIAL}folder" / "inside").mkdir(parents=True)
    remove_partials(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.svg", "sub"]


def test_a_write_that_breaks_off_leaves_what_was_there_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "whole")

    def breaks_off(path):
        path.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_with(tmp_path / "a.txt", breaks_off)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """And its name is before the writer goes on: a machine that stops leaves no empty file of that name."""
    done, sync, put = [], os.fsync, os.replace

    def noted_sync(handle):
        done.append("file" if stat.S_ISREG(os.fstat(handle).st_mode) else "folder")
        sync(handle)

    def noted_put(partial, path):
        done.append("name")
        put(partial, path)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_put)
    write_text(tmp_path / "a.txt", "whole")
    assert done == ["file", "name", "folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_is_full_by_three_names(number):
    """Of the system's own error, and in the text of a library's."""
    for error in (OSError(number, os.strerror(number)), ValueError(f"tensorstore: {os.strerror(number)}")):
        status, line = explain(error)
        assert status == 2
        assert line.endswith("; free space, then start the same command again")


def test_a_full_disk_is_wrong_input(tmp_path):
    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left on device; free space"):
        replace_with(tmp_path / "a.txt", full)


def test_a_folder_that_cannot_be_is_wrong_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*choose a writable folder"):
        make_folder(tmp_path / "file" / "folder")


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "model"

    def fail():
        with new_folder(target) as partial:
            (partial / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(target.parent.iterdir()) == []
    with new_folder(target) as partial:
        (partial / "whole").touch()
        assert not target.exists()
    assert [file.name for file in target.iterdir()] == ["whole"]
    with pytest.raises(InputError, match="exists already"), new_folder(target):
        pass
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as partial:
        (partial / "whole").touch()
    assert (tmp_path / "empty" / "whole").exists()


def test_of_two_that_make_one_folder_the_later_is_told(tmp_path):
    target = tmp_path / "model"

    def make():
        with new_folder(target) as partial:
            (partial / "second").touch()
            target.mkdir()
            (target / "first").touch()

    with pytest.raises(InputError, match="model: exists already; name a new folder"):
        make()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in target.iterdir()] == ["first"]


def test_what_a_killed_process_left_of_a_new_folder_is_removed_and_what_is_being_filled_is_not(tmp_path):
    """A lock tells them apart, which the system lets go with the process."""
    left = tmp_path / ".partial-model-left"
    left.mkdir()
    (left / "half").touch()
    (tmp_path / ".partial-mode").mkdir()
    with new_folder(tmp_path / "model") as partial, new_folder(tmp_path / "model") as other:
        assert {path.name for path in tmp_path.iterdir()} == {".partial-mode", partial.name, other.name}
        (partial / "whole").touch()
    assert (tmp_path / "model" / "whole").exists()


def test_a_new_file_is_written_once(tmp_path):
    write_new(tmp_path / "a", "first")
    with pytest.raises(InputError, match="a: is there already; nothing is overwritten"):
        write_new(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    with pytest.raises(InputError, match=r"cannot write .*none/a: .*free space"):
        write_new(tmp_path / "none" / "a", "")
    with pytest.raises(InputError, match="cannot write"):
        write_new(tmp_path / ("b" * 300), "")
    with pytest.raises(UnicodeEncodeError):
        write_new(tmp_path / "b", "\ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_new_file_is_written_once_where_nothing_can_be_linked(tmp_path, monkeypatch):
    def no_links(*given):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    test_a_new_file_is_written_once(tmp_path)


def test_a_full_disk_is_told_with_the_folder_where_the_system_names_no_file(tmp_path):
    with (
        pytest.raises(InputError, match=r"cannot write in .*: No space.*; free space, then start"),
        naming_full_disk(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    for error in (OSError(errno.ENOSPC, "No space", "a"), OSError(errno.EIO, "broken")):
        with pytest.raises(OSError, match=str(error.strerror)), naming_full_disk(tmp_path):
            raise error


def test_a_folder_is_made_while_another_process_removes_what_a_killed_one_left(tmp_path, monkeypatch):
    touch = Path.touch

    def removed_at_once(path):
        touch(path)
        remove_partials(path.parent)

    monkeypatch.setattr(Path, "touch", removed_at_once)
    make_folder(tmp_path / "shared")
    assert list((tmp_path / "shared").iterdir()) == []
