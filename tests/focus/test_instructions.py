"""Paraphrases of focus instructions: sizes, disjointness, shared vocabulary, grammar of several names."""

import re

import pytest

from fit_jax.data.tasks import TASKS
from fit_jax.errors import InputError
from fit_jax.focus.example import TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, FocusSpec, spec_for

TYPES = (*FOCUS_TYPES[1:], "ignore(core)")
TEXT = TaskText(
    name="bbq",
    instruction="",
    input_template="",
    cue="",
    core="the context",
    spurious={"age": "age", "gender": "gender", "race": "race"},
)

every_type = pytest.mark.parametrize(("task", "focus_type"), [(task, t) for task in (*TASKS, "jsonl") for t in TYPES])


def filled(task: str, spec: str, paraphrases: str) -> list[str]:
    return [
        instruction(TEXT, FocusSpec.parse(spec), paraphrase) for paraphrase in paraphrases_of(task, spec, paraphrases)
    ]


def words(sentences: list[str]) -> set[str]:
    return {word for sentence in sentences for word in re.findall(r"\w+|[^\w\s]", sentence.lower())}


@every_type
def test_pools_are_large_and_disjoint(task, focus_type):
    spec = str(spec_for(focus_type, "age"))
    train, heldout = filled(task, spec, "train"), filled(task, spec, "heldout")
    assert len(set(train)) == len(train) >= 30
    assert len(set(heldout)) == len(heldout) >= 10
    assert not set(train) & set(heldout)


@every_type
def test_training_shows_every_held_out_word_with_the_same_meaning(task, focus_type):
    spec = str(spec_for(focus_type, "age"))
    assert words(filled(task, spec, "heldout")) <= words(filled(task, spec, "train"))


@every_type
def test_sentences_are_whole_and_name_the_features(task, focus_type):
    spec = spec_for(focus_type, "age")
    for paraphrases in ("train", "heldout"):
        for sentence in filled(task, str(spec), paraphrases):
            assert re.fullmatch(r"[A-Z][^{}]*\.", sentence)
            assert all(part[0].isupper() for part in sentence.split(". "))
            named = spec.focus + spec.ignore
            assert ("the context" in sentence.lower()) == ("core" in named)
            assert bool(re.search(r"\bage\b", sentence.lower())) == ("age" in named)


@pytest.mark.parametrize("paraphrases", ["train", "heldout"])
def test_both_roles_come_first_so_that_order_tells_nothing(paraphrases):
    first_is_core = [
        re.search("the context", sentence, re.I).start() < re.search(r"\bage\b", sentence).start()
        for sentence in filled("bbq", "focus(core) & ignore(age)", paraphrases)
    ]
    assert 0.25 < sum(first_is_core) / len(first_is_core) < 0.75


def test_no_instruction_for_the_empty_specification():
    assert paraphrases_of("ss", "none", "train") == paraphrases_of("ss", "none", "heldout") == ("",)
    assert instruction(TEXT, FocusSpec(), "") == ""


def test_several_names_read_as_a_list():
    spec = FocusSpec.parse("focus(core) & ignore(age, gender, race)")
    assert instruction(TEXT, spec, "focus on {focus} and ignore {ignore}.") == (
        "Focus on the context and ignore age, gender and race."
    )
    assert instruction(TEXT, spec, "please do not use {ignore:or}. go by {focus}.") == (
        "Please do not use age, gender or race. Go by the context."
    )
    assert paraphrases_of("bbq", spec, "train") == paraphrases_of("bbq", "focus(core) & ignore(age)", "train")


@pytest.mark.parametrize(
    "spec", ["focus(age) & ignore(gender)", "ignore(core)", "focus(core, age)", "ignore(core, age)"]
)
def test_specifications_outside_the_papers_types_have_paraphrases(spec):
    for sentence in filled("bbq", spec, "heldout"):
        for name in (*FocusSpec.parse(spec).focus, *FocusSpec.parse(spec).ignore):
            assert (TEXT.core if name == "core" else name) in sentence.lower()


def test_wrong_feature_or_paraphrase_is_an_error():
    with pytest.raises(InputError, match="unknown feature 'genre'; known: core, age, gender, race"):
        instruction(TEXT, FocusSpec.parse("ignore(genre)"), "ignore {ignore}.")
    with pytest.raises(InputError, match="not one of 'ignore\\(age\\)': it has a slot 'focus'"):
        instruction(TEXT, FocusSpec.parse("ignore(age)"), "focus on {focus}.")
