"""What a model is asked from Python: taken as it is, or refused in one line that says what to give instead."""

from pathlib import Path

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.focus_inputs import answer_list, feature_list, filled, frame_rows, option_list, questions_of, text_list

SLOTS, CANDIDATES = ("text",), ("negative", "positive")


@pytest.fixture(scope="module")
def pandas():
    return pytest.importorskip("pandas", reason="tables of one's own are tried with pandas")


def test_settings_are_given_as_the_command_line_gives_them():
    settings = {"evaluation.splits": ["low", "iid"], "evaluation.beams": None, "task.name": "demo", "a.b": True}
    assert option_list(settings) == [
        *("--evaluation.splits", '["low", "iid"]', "--evaluation.beams", "null"),
        *("--task.name", "demo", "--a.b", "true"),
    ]
    assert option_list(None) == []
    assert option_list({"a.b": 1, "a.c": 2}, None, {"a.b": Path("x/y")}) == ["--a.b", "x/y", "--a.c", "2"]
    for wrong, said in (
        ([("train.steps", 1)], "settings: .* is no mapping; give fields by name"),
        ({"train": {"steps": 1}}, "settings: train: is a section; give its fields by dotted name"),
    ):
        with pytest.raises(InputError, match=said):
            option_list(wrong)


def test_numpy_scalars_are_the_values_that_they_are():
    values = (np.int64(3), np.float32(0.5), np.bool_(False), [np.int32(1), np.str_("a")])
    assert [option_list({"a.b": value})[1] for value in values] == ["3", "0.5", "false", '[1, "a"]']
    for value in (np.array([1, 2]), np.datetime64("2020-01-01"), np.complex64(1)):
        with pytest.raises(InputError, match=r"settings: .* is no value of a field; give text, numbers and lists"):
            option_list({"a.b": value})


def test_features_and_answers_are_texts():
    assert [feature_list(f, "focus") for f in (None, "a,b", ["a", "b"], ())] == ["", "a,b", "a,b", ""]
    assert answer_list(["a", "b"]) == ["a", "b"]
    for act, said in (
        (lambda: feature_list(3, "focus"), "focus: 3 names no feature; give a name, or a list of names"),
        (lambda: feature_list(["core", 3], "ignore"), "ignore: .* names no feature"),
        (lambda: answer_list("ab"), "candidates: ab is no list of texts; give a list of answers"),
        (lambda: answer_list([1, 2]), "candidates: .* is no list of texts"),
        (lambda: answer_list(5), "candidates: 5 is no list of texts"),
    ):
        with pytest.raises(InputError, match=said):
            act()


def test_an_instruction_is_a_text(task):
    with pytest.raises(InputError, match="instruction: 5 is no text; give the words of a focus instruction"):
        questions_of(task, None, None, (), 5)
    questions = questions_of(task, "core", None, (), None)
    assert filled(questions, "x") == filled(questions, {"text": "x"}) == {"text": "x"}


def test_a_batch_is_a_list_of_texts(pandas):
    assert text_list(iter(["x", {"text": "y"}])) == ["x", {"text": "y"}]
    assert text_list(pandas.Series(["x", "y"])) == ["x", "y"]
    for texts, said in (
        ("abc", "ask_batch: abc is one text; give a list of texts, or use ask"),
        ({"text": "x"}, "is one text; give a list of texts, or use ask"),
        (pandas.DataFrame({"text": ["x", "y", "z"]}), "ask_frame takes a pandas DataFrame"),
        (5, "ask_batch: 5 is no list of texts"),
    ):
        with pytest.raises(InputError, match=said):
            text_list(texts)


def test_no_column_of_a_table_is_lost_to_the_answers(pandas):
    frame = pandas.DataFrame({"text": ["x", "y"], "gold": ["negative", "positive"]})
    assert frame_rows(frame, SLOTS, CANDIDATES) == [{"text": "x"}, {"text": "y"}]
    for name in ("answer", "p(positive)"):
        with pytest.raises(InputError) as told:
            frame_rows(frame.rename(columns={"gold": name}), SLOTS, CANDIDATES)
        assert f"a column {name!r}, whose place the model's would take; rename it, as in frame" in str(told.value)
    with pytest.raises(InputError, match=r"use ask_batch\(frame\[\['text', 'answer'\]\].to_dict"):
        frame_rows(frame.rename(columns={"gold": "answer"}), ("text", "answer"), CANDIDATES)


def test_what_is_no_table_of_texts_is_told(pandas):
    frame = pandas.DataFrame([["x", "y"]], columns=["text", "text"])
    for table, said in (
        (["x"], "a list is no pandas DataFrame; ask_batch takes a list of texts"),
        (frame, "the table has 2 columns 'text'; rename all but one"),
        (pandas.DataFrame({"words": ["x"]}), "no column 'text'; its columns must include text"),
        (pandas.DataFrame({"text": ["x", None]}), "row 1 of the table holds no text in 'text'"),
    ):
        with pytest.raises(InputError, match=said):
            frame_rows(table, SLOTS, CANDIDATES)
