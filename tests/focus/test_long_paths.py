"""Folders with long names leave room in a line for what is wrong with a tokenizer in them."""

import pytest

from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import load_tokenizer
from fit_jax.foreign import named


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"tokenizer.json": b"{}"}, "cannot be read"),
        ({f"{part}.model": b"x" for part in "ab"}, "holds a.model, b.model"),
        ({f"{part * 90}.model": b"x" for part in "abcdefgh"}, "holds aaa"),
        ({"tokenizer.bin": b"\x04\x00\x00\x00" + bytes(6)}, "is cut off or corrupt at byte 4"),
    ],
)
def test_what_is_wrong_with_a_tokenizer_stands_before_its_remedy(tmp_path, files, wrong):
    folder = tmp_path / ("deep" * 30) / ("folder" * 20)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=wrong) as told:
        load_tokenizer(str(folder))
    assert named(folder)[-40:] in str(told.value)
    assert len(str(told.value).rpartition(";")[0]) <= 200
