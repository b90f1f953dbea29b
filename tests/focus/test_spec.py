"""Focus specifications: the printed form, canonical order, contradictions and the paper's table of focus labels."""

from itertools import chain, combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious
from fit_jax.focus.spec import FOCUS_TYPES, SPURIOUS, FocusSpec, check_spec, combined_specs, focus_label, spec_for

NAMES = st.sampled_from(["core", "age", "gender", "SES", "the keyword", "über", "x-1"])


def example(**spurious: int) -> Example:
    return Example(
        "e1", {}, ("no", "yes", "maybe"), 0, {name: Spurious("v", label) for name, label in spurious.items()}
    )


@given(st.frozensets(NAMES), st.frozensets(NAMES), st.randoms())
def test_printed_form_reads_back_in_any_order(focus, ignore, random):
    focus, ignore = list(focus - ignore), list(ignore)
    random.shuffle(focus)
    random.shuffle(ignore)
    spec = FocusSpec(tuple(focus), tuple(ignore))
    assert FocusSpec.parse(str(spec)) == spec
    assert spec == FocusSpec(tuple(reversed(focus)), tuple(ignore * 2))
    assert hash(spec) == hash(FocusSpec.parse(str(spec).replace(" & ", "∧")))


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", "none"),
        (" None ", "none"),
        ("∅", "none"),
        ("ignore(genre) & focus(core)", "focus(core) & ignore(genre)"),
        ("FOCUS ( gender ,age,core )", "focus(core, age, gender)"),
        ("focus(a) & focus(b)", "focus(a, b)"),
    ],
)
def test_forms_that_are_understood(text, printed):
    assert str(FocusSpec.parse(text)) == printed


@pytest.mark.parametrize(
    "text", ["focus", "focus()", "focus(a,)", "focus(a", "look(a)", "focus(a) ignore(b)", "focus(a) &", "focus(a) | b"]
)
def test_other_forms_are_errors_that_show_one(text):
    with pytest.raises(InputError, match=r"^[^\n]*write \"none\"[^\n]*$"):
        FocusSpec.parse(text)


def test_contradiction_is_an_error():
    with pytest.raises(InputError, match="'focus\\(age\\) & ignore\\(core, age\\)' both focuses on and ignores 'age'"):
        FocusSpec.parse("focus(age) & ignore(age, core)")


def test_unknown_feature_is_an_error_that_lists_the_known():
    check_spec(FocusSpec.parse("focus(core) & ignore(age)"), ["age"])
    with pytest.raises(InputError, match="unknown feature 'genre'; known: core, age, sex"):
        check_spec(FocusSpec.parse("focus(genre)"), ["sex", "age"])


def test_every_type_names_the_feature_and_is_canonical():
    assert [str(spec_for(t, "spurious")) for t in FOCUS_TYPES] == list(FOCUS_TYPES)
    assert str(spec_for("focus(spurious) & ignore(core)", "genre")) == "focus(genre) & ignore(core)"
    with pytest.raises(InputError, match="unknown feature 'genre'"):
        spec_for("focus(genre)", "genre")


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("none", 0),
        ("focus(core)", 0),
        ("ignore(s)", 0),
        ("focus(core) & ignore(s)", 0),
        ("focus(s)", 1),
        ("focus(s) & ignore(core)", 1),
        ("ignore(core)", 1),
    ],
)
def test_labels_of_the_papers_table(spec, label):
    assert focus_label(example(s=1), FocusSpec.parse(spec)) == label


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        ("focus(a)", 1),
        ("focus(b) & ignore(a, core)", 2),
        ("ignore(core, a, d)", 2),
        ("ignore(a, b)", 0),
        ("focus(core) & ignore(a, b)", 0),
        ("focus(b, c)", 2),
        ("focus(core, d)", 0),
    ],
)
def test_labels_with_several_features(spec, label):
    assert focus_label(example(a=1, b=2, c=2, d=0), FocusSpec.parse(spec)) == label


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("focus(a, b)", "labels differ \\(a -> 'yes', b -> 'maybe'\\); focus on one"),
        ("focus(core, a)", "labels differ \\(core -> 'no', a -> 'yes'\\)"),
        ("ignore(core)", "labels differ"),
        ("ignore(core, a, b)", "ignores every feature"),
        ("focus(z)", "names 'z', which it lacks; its features are core, a, b"),
        ("ignore(z)", "names 'z'"),
    ],
)
def test_specifications_without_one_label_explain_themselves(spec, message):
    with pytest.raises(InputError, match=f"^example e1: .*{message}"):
        focus_label(example(a=1, b=2), FocusSpec.parse(spec))


def deciding(spec: FocusSpec) -> str:
    """The feature that a specification leaves the answer to, for those of one feature in focus or the core's."""
    return spec.focus[0] if spec.focus else "core"


@pytest.mark.parametrize("features", [("a", "b"), ("a", "b", "c"), ("d", "b", "a", "c")])
def test_combined_specifications_are_all_that_ignore_some_of_the_others(features):
    found = {focus_type: combined_specs(focus_type, features) for focus_type in FOCUS_TYPES}
    subsets = list(chain.from_iterable(combinations(features, n) for n in range(len(features) + 1)))
    pairs = {(f, o) for f in features for o in subsets if o and f not in o}
    several = {o for o in subsets if len(o) > 1}
    expected = {
        "none": set(),
        "focus(core)": set(),
        "ignore(spurious)": {FocusSpec((), o) for o in several},
        "focus(core) & ignore(spurious)": {FocusSpec(("core",), o) for o in several},
        "focus(spurious)": {FocusSpec((f,), o) for f, o in pairs},
        "focus(spurious) & ignore(core)": {FocusSpec((f,), ("core", *o)) for f, o in pairs},
    }
    assert {name: set(specs) for name, specs in found.items()} == expected
    every = [spec for specs in found.values() for spec in specs]
    assert len(set(every)) == len(every)
    for labels in product(range(3), repeat=len(features)):  # whatever the others say
        one = example(**dict(zip(features, labels)))
        for spec in every:
            kept = deciding(spec)
            assert focus_label(one, spec) == (0 if kept == "core" else one.spurious[kept].label)


def test_one_feature_has_nothing_to_be_combined_with():
    assert not any(combined_specs(focus_type, ("a",)) for focus_type in FOCUS_TYPES)
    assert spec_for(f"focus({SPURIOUS})", "a", ("c", "b")) == FocusSpec(("a",), ("b", "c"))
