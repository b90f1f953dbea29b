"""Paraphrases of focus instructions: sizes, disjointness, shared vocabulary, grammar of several names."""

import re
from dataclasses import replace

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
    other_names={"core": ("the passage", "what is said"), "age": ("how old people are",)},
)
CORE_NAMES = ("the context", "the passage", "what is said")
AGE_NAMES = ("age", "how old people are")
SETS = ("train", "heldout", "far")
# What training's phrases and frames are made of, besides the words that say what the features and the input are.
TRAINING_PHRASES = (
    r"\b(focus|attend|rely|base|look at|go by|concentrate|ignore|disregard|pay no attention|forget|aside)\b",
    r"\b(use|not (?:rely|look)|this time|here,|for this|when you (?:choose|rate|judge|decide|write|give)|instead of)\b",
    r"rather than",
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
    train, heldout, far = (filled(task, spec, name) for name in SETS)
    assert len(set(train)) == len(train) >= 30
    assert len(set(heldout)) == len(heldout) >= 10
    assert len(set(far)) == len(far) >= 12
    assert not set(train) & set(heldout)
    assert not set(far) & {*train, *heldout}


@every_type
def test_training_shows_every_held_out_word_with_the_same_meaning(task, focus_type):
    spec = str(spec_for(focus_type, "age"))
    assert words(filled(task, spec, "heldout")) <= words(filled(task, spec, "train"))


@every_type
def test_far_paraphrases_use_no_verb_of_training(task, focus_type):
    spec = str(spec_for(focus_type, "age"))
    for phrase in TRAINING_PHRASES:
        assert [s for s in filled(task, spec, "far") if re.search(phrase, s, re.I)] == []
    # Every far sentence holds words that no sentence of training holds.
    known = words(filled(task, spec, "train"))
    assert all(words([sentence]) - known for sentence in filled(task, spec, "far"))


@every_type
def test_far_paraphrases_are_of_every_kind(task, focus_type):
    far = filled(task, str(spec_for(focus_type, "age")), "far")
    kinds = {
        "negation": r"\b(not|n't|nothing|never|no|none)\b|n't\b",
        "indirect": r"\?$|would",
        "German": r"außer Acht|richte dich",
        "French": r"ceci|cela",
        "Spanish": r"responde|cuenta",
    }
    for kind, pattern in kinds.items():
        assert any(re.search(pattern, sentence, re.I) for sentence in far), kind
    assert max(len(sentence.split()) for sentence in far) > 45
    assert sorted(len(sentence.split()) for sentence in far)[len(far) // 2] < 20


def test_far_paraphrases_call_features_by_their_other_names():
    text = " ".join(filled("bbq", "focus(age) & ignore(core)", "far")).lower()
    for name in (*CORE_NAMES, *AGE_NAMES):
        assert name in text
    for paraphrases in ("train", "heldout"):
        assert "the passage" not in " ".join(filled("bbq", "focus(age) & ignore(core)", paraphrases)).lower()
    plain = replace(TEXT, other_names={})
    spec = FocusSpec.parse("focus(age) & ignore(core)")
    assert (
        instruction(plain, spec, "overlook {ignore:@1} and follow {focus:@2}.")
        == "Overlook the context and follow age."
    )
    assert instruction(TEXT, spec, "overlook {ignore:@2} and follow {focus:@2}.") == (
        "Overlook what is said and follow how old people are."
    )


@every_type
def test_sentences_are_whole_and_name_the_features(task, focus_type):
    spec = spec_for(focus_type, "age")
    for paraphrases in SETS:
        for sentence in filled(task, str(spec), paraphrases):
            assert re.fullmatch(r"[A-ZÉ][^{}]*[.?]", sentence)
            assert all(part[0].isupper() for part in sentence.split(". "))
            named = spec.focus + spec.ignore
            assert any(name in sentence.lower() for name in CORE_NAMES) == ("core" in named)
            assert any(re.search(rf"\b{name}\b", sentence.lower()) for name in AGE_NAMES) == ("age" in named)


@pytest.mark.parametrize("paraphrases", SETS)
def test_both_roles_come_first_so_that_order_tells_nothing(paraphrases):
    core, age = "|".join(CORE_NAMES), rf"\b(?:{'|'.join(AGE_NAMES)})\b"
    first_is_core = [
        re.search(core, sentence, re.I).start() < re.search(age, sentence, re.I).start()
        for sentence in filled("bbq", "focus(core) & ignore(age)", paraphrases)
    ]
    assert 0.25 < sum(first_is_core) / len(first_is_core) < 0.75


def test_no_instruction_for_the_empty_specification():
    assert {paraphrases_of("ss", "none", name) for name in SETS} == {("",)}
    assert instruction(TEXT, FocusSpec(), "") == ""


def test_several_names_read_as_a_list():
    spec = FocusSpec.parse("focus(core) & ignore(age, gender, race)")
    assert instruction(TEXT, spec, "focus on {focus} and ignore {ignore}.") == (
        "Focus on the context and ignore age, gender and race."
    )
    assert instruction(TEXT, spec, "please do not use {ignore:or}. go by {focus}.") == (
        "Please do not use age, gender or race. Go by the context."
    )
    assert instruction(TEXT, spec, "ceci : {ignore:,}.") == "Ceci : age, gender, race."
    assert paraphrases_of("bbq", spec, "train") == paraphrases_of("bbq", "focus(core) & ignore(age)", "train")


@pytest.mark.parametrize(
    "spec", ["focus(age) & ignore(gender)", "ignore(core)", "focus(core, age)", "ignore(core, age)"]
)
def test_specifications_outside_the_papers_types_have_paraphrases(spec):
    for paraphrases in SETS:
        for sentence in filled("bbq", spec, paraphrases):
            for name in (*FocusSpec.parse(spec).focus, *FocusSpec.parse(spec).ignore):
                names = {"core": CORE_NAMES, "age": AGE_NAMES}.get(name, (name,))
                assert any(called in sentence.lower() for called in names)


def test_wrong_feature_or_paraphrase_is_an_error():
    with pytest.raises(InputError, match="unknown feature 'genre'; known: core, age, gender, race"):
        instruction(TEXT, FocusSpec.parse("ignore(genre)"), "ignore {ignore}.")
    with pytest.raises(InputError, match="not one of 'ignore\\(age\\)': it has a slot 'focus'"):
        instruction(TEXT, FocusSpec.parse("ignore(age)"), "focus on {focus}.")
