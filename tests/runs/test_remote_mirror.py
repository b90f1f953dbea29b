"""What a working copy sends to the store, in which order, and what is there when it is cut off."""

import re
import shutil
from pathlib import Path

import pytest

from fit_jax.files import PARTIAL
from fit_jax.runs.remote_mirror import Mirror
from fit_jax.runs.remote_store import RemoteStore
from fit_jax.runs.run_folder import CARD
from fit_jax.sums import dump_listing, list_folder

from .shelf import URL, content, objects, put


class Cut(Exception):
    """The process ends here."""


class CutStore(RemoteStore):
    """Ends when so many objects have been written or deleted."""

    def __init__(self, url: str, left: int) -> None:
        super().__init__(url)
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cut

    def send(self, path: Path, name: str) -> None:
        self._count()
        super().send(path, name)

    def write(self, name: str, content: bytes) -> None:
        self._count()
        super().write(name, content)

    def remove(self, name: str) -> None:
        self._count()
        super().remove(name)


def test_a_copy_cut_off_anywhere_is_an_earlier_moment(tmp_path, shelf):
    """At every write: no folder that is half there, no checkpoint without what it needs."""
    left = 0
    while True:
        for file in shelf.iterdir():
            file.unlink()
        folder = tmp_path / f"run{left}"
        store = CutStore(URL, left)
        mirror = Mirror(store, folder)
        try:
            store.write(".remote-run", b"1\n")
            put(folder, 1, **{"config.yaml": "a"})
            put(folder, 2, tokenizer__a="1", tokenizer__b="2")
            put(folder, 4, checkpoints__2__state__a="two", checkpoints__2__b="2")
            put(folder, 5, **{"metrics.jsonl": "12"})
            put(folder, 6, **{CARD: "two"})
            mirror.send(last=True)
            shutil.rmtree(folder / "checkpoints" / "2")
            put(folder, 7, checkpoints__4__state__a="four", checkpoints__4__b="4")
            put(folder, 8, **{"metrics.jsonl": "1234"})
            put(folder, 9, **{"report__radar.svg": "r"})
            put(folder, 10, **{"report__index.html": "i"})
            put(folder, 11, **{CARD: "four"})
            mirror.send(last=True)
            ended = True
        except Cut:
            ended = False
        copy = tmp_path / f"copy{left}"
        copy.mkdir()
        Mirror(RemoteStore(URL), copy).fetch()
        found = content(copy)
        steps = {int(name.split("/")[1]) for name in found if re.match(r"checkpoints/\d+/", name)}
        assert {name for name in found if name.endswith(".whole")} == {f"checkpoints/{step}.whole" for step in steps}
        for step, word in ((2, "two"), (4, "four")):
            if step in steps:
                assert found[f"checkpoints/{step}/state/a"] == word.encode()
                assert found[f"checkpoints/{step}/b"] == str(step).encode()
                assert len(found["metrics.jsonl"]) >= step
        if steps:
            assert {"tokenizer/a", "tokenizer/b", "config.yaml"} <= found.keys()
        assert ("tokenizer/a" in found) == ("tokenizer/b" in found)
        if "report/index.html" in found:
            assert "report/radar.svg" in found
            assert 4 in steps
        if CARD in found:  # whose report is whole, and of the last checkpoint
            assert found[CARD] == (b"four" if 4 in steps else b"two")
            assert ("report/index.html" in found) == (4 in steps)
        if ended:
            assert found.keys() - content(folder).keys() == {"checkpoints/4.whole"}
            assert content(folder).items() <= found.items()
            break
        left += 1
    assert left > 15


def test_what_is_being_written_waits(tmp_path, shelf):
    folder = tmp_path / "run"
    mirror = Mirror(RemoteStore(URL), folder)
    put(folder, 1, **{"config.yaml": "a", "checkpoints__2__a": "2", ".lock": "x", f"{PARTIAL}x": "x"})
    put(folder, 2, **{"checkpoints__4.orbax-checkpoint-tmp__a": "4", "checkpoints__3__a": "3", "tokenizer__a": "1"})
    mirror.send(last=False)
    # An older checkpoint may be just being deleted; one that stands unchanged until the next copy is not.
    assert objects(shelf).keys() == {"config.yaml"}
    mirror.send(last=False)
    assert objects(shelf).keys() == {"config.yaml"} | {
        f"{unit}{end}" for unit in ("checkpoints/2", "checkpoints/3", "tokenizer") for end in ("/a", ".whole")
    }


def test_nothing_is_deleted_after_a_look_that_missed_something(tmp_path, shelf):
    """A link to nothing is as a file that went between being listed and being looked at."""
    folder = tmp_path / "run"
    mirror = Mirror(RemoteStore(URL), folder)
    put(folder, 1, **{"config.yaml": "a", "tokenizer__a": "1"})
    mirror.send(last=True)
    there = objects(shelf)
    shutil.rmtree(folder / "tokenizer")
    (folder / "gone").symlink_to("nowhere")
    mirror.send(last=False)
    assert objects(shelf) == there
    (folder / "gone").unlink()
    mirror.send(last=False)
    assert objects(shelf).keys() == {"config.yaml"}


def test_what_was_sent_before_is_not_sent_again(tmp_path, shelf):
    folder = tmp_path / "run"
    put(folder, 1, checkpoints__2__a="2", tokenizer__a="1")
    (folder / "checkpoints" / "2.whole").write_text(dump_listing(list_folder(folder / "checkpoints" / "2")))
    Mirror(RemoteStore(URL), folder).send(last=True)
    store = CutStore(URL, 0)
    mirror = Mirror(store, folder)
    mirror.take_up()
    mirror.send(last=True)
    put(folder, 2, checkpoints__2__a="3")
    (folder / "checkpoints" / "2.whole").write_text(dump_listing(list_folder(folder / "checkpoints" / "2")))
    mirror = Mirror(store, folder)
    mirror.take_up()
    with pytest.raises(Cut):
        mirror.send(last=True)
    Mirror(RemoteStore(URL), folder).send(last=True)
    put(folder, 3, tokenizer__a="2")
    mirror = Mirror(store, folder)
    mirror.take_up()
    with pytest.raises(Cut):
        mirror.send(last=True)
