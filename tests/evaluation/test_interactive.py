"""One text under each focus instruction: specs, slots and answers."""

import shlex
from dataclasses import replace

import pytest

from fit_jax.errors import InputError, explain
from fit_jax.evaluation.evaluator import Subject
from fit_jax.evaluation.interactive import FocusQuestions, all_specs, labelled_texts, read_slots
from fit_jax.focus.spec import FOCUS_TYPES, spec_for


@pytest.fixture(scope="module")
def subject(encoder, make_scorer, params) -> Subject:
    return Subject(encoder, make_scorer(), params)


def test_all_types_are_asked_without_a_focus(task, subject):
    (answers,) = FocusQuestions(task, None, None, ()).answers(subject, [{"text": "the lamp is bad"}])
    assert [a.spec for a in answers] == [spec_for(focus, "keyword") for focus in FOCUS_TYPES]
    for a in answers:
        assert a.probabilities.sum() == pytest.approx(1)
        assert a.answer in ("negative", "positive")
    assert answers[0].instruction == ""
    assert "the keyword" in answers[4].instruction


def test_a_focus_is_asked_alone(task, subject):
    questions = FocusQuestions(task, "core", "keyword", ("bad", "good"))
    ((answer,),) = questions.answers(subject, [{"text": "the lamp is bad"}])
    assert str(answer.spec) == "focus(core) & ignore(keyword)"
    assert answer.candidates == ("bad", "good")


@pytest.mark.parametrize(
    ("focus", "ignore", "message"),
    [
        ("colour", None, "unknown feature 'colour'; known: core, keyword"),
        ("core", "core", "both focuses on and ignores"),
        (None, "core, keyword", "nothing is left to answer by"),
    ],
)
def test_wrong_features_are_reported(task, focus, ignore, message):
    with pytest.raises(InputError, match=message):
        FocusQuestions(task, focus, ignore, ())


def test_slots_are_filled(task):
    one = FocusQuestions(task, None, None, ())
    assert one.fill("some text") == one.fill({"text": "some text"}) == {"text": "some text"}
    pairs = replace(task, text=replace(task.text, input_template="{premise} / {hypothesis}"))
    two = FocusQuestions(pairs, None, None, ())
    assert two.fill({"premise": "a", "hypothesis": "b"}) == {"premise": "a", "hypothesis": "b"}
    for text, message in (
        ("x", "has several texts (premise, hypothesis); give each by its name"),
        ({"premise": "a"}, "no text for hypothesis; give it"),
        ({"genre": "a"}, "'genre' is no text of the input; give 'premise', 'hypothesis'"),
        ({"premis": "a"}, "'premis' is no text of the input; did you mean 'premise'?"),
    ):
        assert told(lambda text=text: two.fill(text)).endswith(message)
    assert told(lambda: one.fill("  ")) == "no text for text; give it"
    for answers in (["a"], ["a", "a"], ["a", " "]):
        assert told(lambda answers=answers: FocusQuestions(task, None, None, answers)).startswith("candidates: give")


def told(ask):
    """What is told of a wrong question: names as they are everywhere, whoever asks."""
    with pytest.raises(InputError) as error:
        ask()
    assert "--" not in str(error.value)
    assert "--" in error.value.usage
    return str(error.value)


def test_the_command_line_is_told_what_a_shell_takes(task):
    spaced = replace(task, text=replace(task.text, input_template="{verified purchase}: {text}"))
    with pytest.raises(InputError) as error:
        FocusQuestions(spaced, None, None, ()).fill({"text": "a"})
    assert shlex.split(explain(error.value)[1].partition("; give it: ")[2]) == [
        *("--slot", "verified purchase=the text"),
        *("--slot", "text=the text"),
    ]


def test_a_value_that_no_row_has_is_told_with_the_nearest(task):
    """Of a slot that holds a few values, such as a column that is shown to the model; a free text may be anything."""
    split = task.splits["validation"]
    channels = ("phone", "Web form")
    examples = [replace(e, slots={**e.slots, "channel": channels[n % 2]}) for n, e in enumerate(split.examples)] * 10
    shown = replace(
        task,
        text=replace(task.text, input_template="{channel}: {text}"),
        splits={
            "train": None,
            "validation": replace(split, examples=examples),
        },  # a run keeps no training text
    )
    questions = FocusQuestions(shown, None, None, ())
    assert list(questions.unknown({"channel": "phone", "text": "what nobody wrote"})) == []
    (line,) = questions.unknown({"channel": "web from", "text": "x"})
    assert line.endswith("; did you mean 'Web form'?")
    (line,) = questions.unknown({"channel": "fax", "text": "x"})
    assert line.endswith("; the data have 'phone', 'Web form'")


def test_answers_that_differ_by_example_must_be_given(task):
    examples = [replace(e, candidates=(e.uid, "b")) for e in task.splits["validation"].examples]
    varied = replace(task, splits={**task.splits, "validation": replace(task.splits["validation"], examples=examples)})
    assert told(lambda: FocusQuestions(varied, None, None, ())).endswith("; give candidates")
    assert FocusQuestions(varied, None, None, ("a", "b"))


def test_texts_are_asked_for_until_the_end_of_input(monkeypatch, capsys):
    lines = iter(["one", "", "two", "three"])

    def read(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    assert list(read_slots(("premise", "hypothesis"))) == [{"premise": "one", "hypothesis": "two"}]


def test_nothing_is_asked_twice(task):
    """What two features have in common, and a text that stands in the input in two places."""
    text = replace(task.text, spurious={"keyword": "the keyword", "length": "the length"}, input_template="{a} {b} {a}")
    specs = all_specs(replace(task, text=text))
    assert len(specs) == len(set(specs))
    assert set(specs) == {spec_for(focus, feature) for focus in FOCUS_TYPES for feature in text.spurious}
    assert text.slots == ("a", "b")


def test_a_text_of_the_task_comes_with_what_each_feature_points_to(task):
    found = labelled_texts(task, "low", 6)
    assert len(found) == 6
    for shown, example in zip(found, task.splits["low"].examples):
        value, tied = example.spurious["keyword"]
        assert (shown.text, shown.values) == (example.slots, {"keyword": value})
        assert shown.answers == {"core": example.candidates[example.label], "keyword": example.candidates[tied]}
    assert any(shown.answers["core"] != shown.answers["keyword"] for shown in found)
