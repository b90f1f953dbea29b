"""Options of the commands."""

import importlib
from pathlib import Path

import pytest

from fit_jax.errors import InputError
from fit_jax.options import Parser, add_checkpoint, nearest, new_file, new_folder


@pytest.fixture
def parser():
    parser = Parser(prog="some")
    parser.add_argument("--text")
    parser.add_argument("--slot", action="append")
    parser.add_argument("--json", action="store_true")
    add_checkpoint(parser)
    return parser


def test_options_are_given_as_one_word_or_two(parser):
    for arguments in (["--text", "a=b", "--slot", "c", "--slot=d"], ["--slot=c", "--slot", "d", "--text=a=b"]):
        given = parser.parse_args(arguments)
        assert (given.text, given.slot, given.json) == ("a=b", ["c", "d"], False)
    assert parser.parse_args(["--text", "-well-", "--json"]).text == "-well-"
    assert parser.parse_args(["--text", "-1"]).text == "-1"


def test_what_there_is_is_listed_where_it_is_short():
    assert nearest("colour", ["colours", "b"]) == "did you mean 'colours'?"
    assert nearest("--splits", ["--task.split_by", "--evaluation.splits"]) == "did you mean '--evaluation.splits'?"
    assert nearest("zzz", ["one", "two"]) == "known here: one, two"
    assert nearest("zzz", ["é" * 99, "ü" * 99]) == "--help lists what there is"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text"], "--text: expected one argument"),
        (["--text", "--json"], "--text: expected one argument"),
        (["--text", "a", "--text=b"], "--text is given twice"),
        (["--txt", "a"], "--txt: there is no such option; did you mean '--text'?"),
        (["--tex", "a"], "did you mean '--text'?"),
        (["text"], "unexpected argument 'text'"),
        (["--checkpoint", "newest"], "best, last or"),
        (["--checkpoint", "-1"], "best, last or"),
        (["--checkpoint", "²"], "best, last or"),
    ],
)
def test_wrong_options_are_told_with_the_nearest_match(arguments, said, parser):
    with pytest.raises(InputError) as error:
        parser.parse_args(arguments)
    assert said in str(error.value)


def test_checkpoints_are_named_or_numbered(parser):
    given = [parser.parse_args(a).checkpoint for a in ([], ["--checkpoint=last"], ["--checkpoint", "30"])]
    assert given == ["best", "last", 30]


def test_a_file_to_write_must_be_new_and_have_a_folder(tmp_path):
    assert new_file("--html")(str(tmp_path / "a.html")) == tmp_path / "a.html"
    for name, message in ((".", "nothing is overwritten"), ("none/a.html", "is no folder")):
        with pytest.raises(InputError, match=message):
            new_file("--html")(str(tmp_path / name))


@pytest.mark.parametrize("read", [new_file, new_folder])
def test_what_is_written_is_on_this_machine(read, tmp_path, monkeypatch):
    """Not even where a folder has the name of a bucket's URL."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gs:" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--out: gs://b/x\.yaml is a URL"):
        read("--out")("gs://b/x.yaml")
    assert read("--out")("x.yaml") == Path("x.yaml")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("fit_jax.convert", ["import", "--from", "a", "--to"]),
        ("fit_jax.data.__main__", ["build", "--task", "demo", "--out"]),
        ("fit_jax.data.__main__", ["audit", "--task", "demo", "--html"]),
        ("fit_jax.playground.__main__", ["run", "--export"]),
        ("fit_jax.plan", ["--topology", "v5e:2x2", "--write"]),
    ],
)
def test_no_command_writes_to_a_folder_named_as_a_url(module, arguments):
    with pytest.raises(InputError, match=rf"{arguments[-1]}: gs://b/x is a URL"):
        importlib.import_module(module).main([*arguments, "gs://b/x"])
