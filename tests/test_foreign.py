"""Values and files that others wrote: what is refused, and that it is one line."""

import json
import os
import time

import pytest

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, check_regular, is_installed, printable, read_bytes, read_object, read_records, shown

ASKED = {
    "whole": lambda fields: fields.whole("x", 1, 100),
    "number": lambda fields: fields.number("x", 0, 100),
    "flag": lambda fields: fields.flag("x"),
    "choice": lambda fields: fields.choice("x", ("a", "b")),
    "section": lambda fields: fields.section("x"),
    "texts": lambda fields: fields.texts("x"),
    "numbers": lambda fields: list(fields.numbers("x", 0, 100)),
    "flags": lambda fields: fields.flags("x"),
}
GOOD = {
    "whole": 7, "number": 0.5, "flag": True, "choice": "b", "section": {"y": 1}, "texts": ["a", "b"],
    "numbers": [0.5, 7], "flags": [True, False],
}  # fmt: skip
BAD = (
    "7",
    [7],
    {"a": 1},
    -1,
    0,
    1.5,
    True,
    False,
    10**9,
    10**5000,
    float("nan"),
    float("inf"),
    1e300,
    "\ud800",
    [[]] * 9,
)


def refusal(kind, value):
    """What is said of a value that is not of the kind; None where it is taken."""
    try:
        ASKED[kind](Fields({"x": value}, "config.json"))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("kind", ASKED)
def test_a_field_is_what_it_must_be_or_one_line(kind):
    found = ASKED[kind](Fields({"x": GOOD[kind]}, "config.json"))
    assert (found.values if kind == "section" else found) == GOOD[kind]
    said = [(value, refusal(kind, value)) for value in (*BAD, *GOOD.values())]
    taken = [value for value, line in said if line is None]
    more = {"number": [7, 1.5], "flag": [False, True], "section": [{"a": 1}], "numbers": [[7]]}
    assert sorted(map(repr, taken)) == sorted(map(repr, [*more.get(kind, []), GOOD[kind]]))
    for line in (line for _, line in said if line is not None):
        assert line.startswith(("config.json: x ", "config.json: x["))
        assert len(line) < 200
        assert line.isprintable()


def test_what_is_absent_is_the_default_or_an_error():
    fields = Fields({"x": None}, "config.json")
    assert fields.whole("x", 1, 9, 3) == fields.whole("y", 1, 9, 3) == 3
    assert (fields.section("x"), fields.texts("y"), fields.flag("x")) == (None, None, False)
    for name in ("x", "y"):
        with pytest.raises(InputError, match=f"config.json: lacks {name}; fetch"):
            fields.whole(name, 1, 9)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "4300 digits"),
        ("[1]", "a JSON list"),
        ("{", "no JSON"),
        ("", "no JSON"),
        (b"\xff\xfe{", "no UTF-8"),
    ],
)
def test_what_is_no_object_is_told(written, said, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(InputError, match=said) as error:
        read_object(path)
    assert str(path)[-40:] in str(error.value)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps({"a": 1}))
    assert read_object(tmp_path / "a.json").values == {"a": 1}
    (tmp_path / "rows.jsonl").write_text('\ufeff{"a": 1}\n{"a": 2}\n', encoding="utf-8")
    assert read_records(tmp_path / "rows.jsonl", "remedy") == [{"a": 1}, {"a": 2}]


def test_a_file_that_is_too_large_is_told_and_not_cut(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"1234")
    assert read_bytes(path, most=4) == b"1234"
    with pytest.raises(InputError, match=r"config\.json: is larger than 3 bytes"):
        read_bytes(path, most=3)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "good").touch()
    check_regular(tmp_path / "good")
    started = time.monotonic()
    for name in ("pipe", "zero", "loop", ".", "none", "a\0b", "a" * 300):
        with pytest.raises(InputError, match=r"^[^\n\x00]+ cannot be read: [^\n]+; name a readable file$"):
            check_regular(tmp_path / name)
    assert time.monotonic() - started < 60  # a pipe without a writer would wait for ever


def test_values_are_shown_on_one_short_line_that_no_terminal_obeys():
    for value in ("a\nb", "\x1b[31m", "x" * 10**6, 10**5000, [10**5000], "\u202e\ud800", {"a": ["b"] * 1000}):
        assert len(shown(value)) < 80
        assert shown(value).isprintable()
    assert printable("a\x1b[0m\x9b\x07é\n\tb") == "a\\u001b[0m\\u009b\\u0007é\n\tb"


def test_records_are_whole_lines(tmp_path):
    """Other characters that end a line for some programs do not end a record; a line half written is told."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x\u2028y\x85z"}\n{"b": 1}\n', encoding="utf-8")
    assert read_records(path, "remedy") == [{"a": "x\u2028y\x85z"}, {"b": 1}]
    for line in ("[]", "{", '{"a": '):
        path.write_text(f"{{}}\n{line}\n")
        with pytest.raises(InputError, match=r"line 2: no JSON object .*; remedy"):
            read_records(path, "remedy")


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    """Trackers make one in the folder where they work."""
    (tmp_path / "some_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("some_tracker")
    assert not is_installed("no_such_tracker")
    assert is_installed("numpy")
