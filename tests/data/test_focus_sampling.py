from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fit_jax.config import FocusConfig
from fit_jax.data.focus_sampling import MOST_COMBINED, FocusSampler, check_combinations, combinations_asked
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, FocusSpec, combined_specs, focus_label, spec_for

TEXT = TaskText(
    name="demo",
    instruction="Is it good?",
    input_template="{text}",
    cue="Answer:",
    core="the sentiment",
    spurious={"keyword": "the keyword", "genre": "the genre"},
)
EXAMPLES = [
    Example(f"e{i}", {"text": "x"}, ("no", "yes"), i % 2, {"keyword": Spurious("a", 0), "genre": Spurious("b", 1)})
    for i in range(600)
]


def make(examples=EXAMPLES, seed=0, branches=1, shown=True, **config):
    return FocusSampler(examples, TEXT, FocusConfig(branches=branches, **config), shown, seed)


def type_of(spec):
    return next(name for name in FOCUS_TYPES for feature in ("keyword", "genre") if spec_for(name, feature) == spec)


def test_label_and_instruction_follow_the_specification():
    for example, (draw,) in zip(EXAMPLES, make().sample(0, range(600))):
        assert draw.label == focus_label(example, draw.spec)
        shown = {instruction(TEXT, draw.spec, w) for w in paraphrases_of("demo", type_of(draw.spec), "train")}
        assert draw.instruction in shown
        assert (draw.instruction == "") == (draw.spec == FocusSpec())


@pytest.mark.parametrize("most", [1, 3, 10**6])
def test_so_many_paraphrases_of_each_type_are_shown_evenly_from_all(most):
    samples = make(branches=6, paraphrases=most, weights={"focus(core)": 1.0}).sample(0, range(600))
    shown = {draw.instruction for (draw, *_) in samples}
    every = [
        instruction(TEXT, spec_for("focus(core)", "keyword"), w) for w in paraphrases_of("demo", "focus(core)", "train")
    ]
    assert len(shown) == min(most, len(every))
    assert shown <= {*every}
    assert max(map(every.index, shown)) >= (1 - 1 / most) * len(every) - 1


def test_pure_function_of_seed_epoch_and_example():
    whole = make(branches=3).sample(5, range(600))
    parts = make(branches=3)
    parts.sample(2, [7])
    assert [parts.sample(5, [i])[0] for i in (599, 0, 37)] == [whole[i] for i in (599, 0, 37)]
    assert make(branches=3, seed=1).sample(5, range(600)) != whole
    assert make(branches=3).sample(6, range(600)) != whole


@pytest.mark.parametrize("branches", [1, 2, 6])
def test_branches_have_distinct_types(branches):
    for draws in make(branches=branches).sample(3, range(600)):
        assert len({type_of(draw.spec) for draw in draws}) == branches


def test_types_come_in_their_shares_over_an_epoch():
    weights = {"none": 1.0, "focus(core)": 2.0, "focus(spurious)": 3.0}
    counts = Counter(type_of(d.spec) for draws in make(weights=weights).sample(0, range(600)) for d in draws)
    assert counts.keys() == weights.keys()
    for name, weight in weights.items():
        assert counts[name] == pytest.approx(100 * weight, abs=50)


def test_an_example_sees_the_types_in_their_shares_over_the_epochs():
    draws = make()
    for i in range(20):
        counts = Counter(type_of(draws.sample(epoch, [i])[0][0].spec) for epoch in range(60))
        assert all(8 <= counts[name] <= 12 for name in FOCUS_TYPES)


def test_a_weight_over_a_branchs_share_gives_its_type_several_branches():
    weights = {"none": 1.0, "focus(spurious)": 3.0}
    for draws in make(weights=weights, branches=4).sample(0, range(50)):
        assert Counter(type_of(d.spec) for d in draws) == weights


def test_features_are_drawn_evenly():
    drawn = make(weights={"focus(spurious)": 1.0}).sample(0, range(600))
    counts = Counter(draws[0].spec.focus[0] for draws in drawn)
    assert counts["keyword"] == pytest.approx(300, abs=60)
    assert counts["keyword"] + counts["genre"] == 600


def test_without_instructions_the_labels_are_the_same():
    focus = make(shown=False, branches=2).sample(0, range(600))
    assert all(
        d.instruction == "" and d.label == focus_label(EXAMPLES[i], d.spec) for i, ds in enumerate(focus) for d in ds
    )
    assert [[d.spec for d in ds] for ds in focus] == [
        [d.spec for d in ds] for ds in make(branches=2).sample(0, range(600))
    ]


def test_the_loader_is_asked_for_the_instruction_and_the_focus_label_alone():
    sampler, indices = make(branches=2), np.array([3, 599])
    asked = [[(b.instruction, tuple(b.answers)) for b in branches] for branches in sampler.branches_of(4, indices)]
    assert asked == [[(d.instruction, (d.label,)) for d in draws] for draws in sampler.sample(4, indices)]


def test_zero_weight_types_need_no_feature():
    plain = [replace(example, spurious={}) for example in EXAMPLES[:10]]
    weights = {"none": 1.0, "focus(core)": 1.0, "focus(spurious)": 0.0}
    assert len(make(examples=plain, weights=weights).sample(0, np.arange(10))) == 10
    with pytest.raises(InputError, match=r"example e\d: '.*spurious.*' needs a spurious feature"):
        make(examples=plain).sample(0, range(10))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"weights": {"focus(kore)": 1.0}}, r"focus.weights: unknown focus type 'focus\(kore\)'; known: none"),
        ({"weights": {"none": -1.0}}, "'none' has weight -1.0"),
        ({"weights": {"none": float("nan")}}, "'none' has weight nan"),
        ({"weights": {"none": 0.0}}, "every weight is 0"),
        ({"weights": {}}, "every weight is 0"),
        ({"branches": 0}, "focus.branches: 0"),
    ],
)
def test_wrong_config(config, message):
    with pytest.raises(InputError, match=message):
        make(**config)


FEATURES = ("keyword", "genre")
SEVERAL = {spec: name for name in FOCUS_TYPES for spec in combined_specs(name, FEATURES)}
HELD_OUT = ("ignore(keyword, genre)", "focus(keyword) & ignore(genre)")


def drawn(epochs=3, **config):
    return [d for e in range(epochs) for draws in make(branches=2, **config).sample(e, range(600)) for d in draws]


def test_a_share_of_the_instructions_names_several_features():
    draws = drawn(combinations=0.5)
    for focus_type in FOCUS_TYPES[2:]:
        single = {spec_for(focus_type, feature) for feature in FEATURES}
        several = combined_specs(focus_type, FEATURES)
        counts = Counter(d.spec for d in draws if d.spec in single or d.spec in several)
        assert sum(counts[spec] for spec in several) / counts.total() == pytest.approx(0.5, abs=0.06)
        for specs in (single, several):  # each as likely
            assert min(counts[s] for s in specs) > 0.75 * max(counts[s] for s in specs)
    for d in draws:
        if d.spec in SEVERAL:
            sentences = paraphrases_of("demo", d.spec, "train")
            assert d.instruction in {instruction(TEXT, d.spec, sentence) for sentence in sentences}
            assert "keyword" in d.instruction
            assert "genre" in d.instruction


def test_types_keep_their_shares_where_features_are_combined():
    """What is combined is another choice than that of the type, the paraphrases' and the order's."""
    type_of_spec = {spec_for(name, f): name for name in FOCUS_TYPES for f in FEATURES} | SEVERAL
    alone, together = drawn(), drawn(combinations=0.7, held_out=HELD_OUT)
    assert [type_of_spec[d.spec] for d in alone] == [type_of_spec[d.spec] for d in together]
    assert any(a.spec != b.spec for a, b in zip(alone, together))


def test_held_out_combinations_are_never_drawn():
    held_out = {FocusSpec.parse(text) for text in HELD_OUT}
    specs = Counter(d.spec for d in drawn(combinations=1.0, held_out=HELD_OUT))
    assert not held_out & specs.keys()
    assert SEVERAL.keys() - held_out <= specs.keys()
    # Where every combination of a type is held out, its instructions name one feature.
    assert {spec_for("ignore(spurious)", f) for f in FEATURES} <= specs.keys()


def test_one_feature_at_a_time_is_what_it_was_and_needs_two_features_otherwise():
    assert not SEVERAL.keys() & {d.spec for d in drawn()}
    assert drawn(held_out=HELD_OUT) == drawn()
    plain = [replace(e, spurious={"keyword": e.spurious["keyword"]}) for e in EXAMPLES]
    alone = make(examples=plain).sample(1, range(600))
    assert make(examples=plain, combinations=0.9).sample(1, range(600)) == alone


def test_what_is_asked_and_whether_it_was_seen():
    assert combinations_asked(FocusConfig(), EXAMPLES) == {}
    asked = combinations_asked(FocusConfig(combinations=0.5, held_out=HELD_OUT), EXAMPLES)
    assert asked.keys() == SEVERAL.keys()
    assert {str(spec) for spec, seen in asked.items() if not seen} == {str(FocusSpec.parse(t)) for t in HELD_OUT}
    weights = {"none": 1.0, "focus(spurious)": 1.0}
    of_one_type = combinations_asked(FocusConfig(combinations=0.5, weights=weights), EXAMPLES)
    assert {spec for spec, is_seen in of_one_type.items() if is_seen} == {*combined_specs("focus(spurious)", FEATURES)}
    assert not any(combinations_asked(FocusConfig(held_out=HELD_OUT), EXAMPLES).values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"held_out": ("focus(keyword) & ignore(tag)",)},
            "'focus\\(keyword\\) & ignore\\(tag\\)' is no instruction about",
        ),
        ({"held_out": ("focus(keyword)",)}, "no instruction about several features of task demo; write"),
        ({"held_out": ("focus(keyword, genre)",)}, "no instruction about several features"),
    ],
)
def test_what_cannot_be_held_out_of_a_task(config, message):
    with pytest.raises(InputError, match=message):
        check_combinations(FocusConfig(**config), task_of(EXAMPLES))


def task_of(examples):
    return Task(text=TEXT, splits={"validation": Split("validation", examples, {})})


def with_features(*features):
    return [replace(e, spurious=dict.fromkeys(features, Spurious("a", 0))) for e in EXAMPLES[:3]]


def test_a_task_without_two_features_in_a_text_has_nothing_to_combine():
    """What counts is the texts: a task may have several features of which each text has one, as BBQ has."""
    alone = task_of([*with_features("keyword"), *with_features("genre")])
    check_combinations(FocusConfig(), alone)
    for config in ({"combinations": 0.5}, {"held_out": HELD_OUT}):
        with pytest.raises(InputError, match=f"^focus.{next(iter(config))}: task demo has no two spurious features"):
            check_combinations(FocusConfig(**config), alone)
    mixture = Task(text=replace(TEXT, name="mixture"), splits={}, parts={"one": alone, "two": task_of(EXAMPLES)})
    check_combinations(FocusConfig(combinations=0.5, held_out=HELD_OUT), mixture)


def test_more_features_of_a_text_than_instructions_could_name_are_refused():
    names = [f"f{n}" for n in range(MOST_COMBINED + 1)]
    check_combinations(FocusConfig(combinations=0.5), task_of(with_features(*names[1:])))
    with pytest.raises(InputError, match=r"focus\.combinations: .* have up to 7 spurious features.*name 6 or fewer in"):
        check_combinations(FocusConfig(combinations=0.5), task_of(with_features(*names)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"combinations": 1.5}, "focus.combinations: 1.5 is no share"),
        ({"held_out": ("focus keyword",)}, "focus.held_out: focus specification 'focus keyword': cannot read"),
        ({"held_out": ("focus(a) & ignore(a)",)}, "focus.held_out: .* both focuses on and ignores 'a'"),
        ({"held_out": ("ignore(a, b)", "ignore(b,a)")}, "focus.held_out: names an instruction twice"),
    ],
)
def test_malformed_fields_are_told_by_the_config(config, message):
    with pytest.raises(InputError, match=message):
        FocusConfig(**config).check()
