"""Files are there whole or not at all, and what the disk refuses is an error that the user can fix."""

import pytest

from fit_jax.errors import InputError
from fit_jax.files import make_folder, replace_with, write_text


def test_a_write_that_breaks_off_leaves_what_was_there_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "whole")

    def breaks_off(path):
        path.write_text("ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_with(tmp_path / "a.txt", breaks_off)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_full_disk_is_wrong_input(tmp_path):
    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left on device; free space"):
        replace_with(tmp_path / "a.txt", full)


def test_a_folder_that_cannot_be_is_wrong_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*choose a writable folder"):
        make_folder(tmp_path / "file" / "folder")
