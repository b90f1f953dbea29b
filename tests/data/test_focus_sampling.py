from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fit_jax.config import FocusConfig
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.errors import InputError
from fit_jax.focus.example import Example, Spurious, TaskText
from fit_jax.focus.instructions import instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, FocusSpec, focus_label, spec_for

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
