"""Options of the commands."""

import pytest

from fit_jax.errors import InputError
from fit_jax.options import Parser, add_checkpoint, nearest, new_file


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
    assert new_file(str(tmp_path / "a.html")) == tmp_path / "a.html"
    for name, message in ((".", "nothing is overwritten"), ("none/a.html", "is no folder")):
        with pytest.raises(InputError, match=message):
            new_file(str(tmp_path / name))
