"""Questions with another value of a feature in their text, and how often answers change with it."""

from dataclasses import replace

import pytest

from fit_jax.evaluation.counterfactuals import changes, counterfactuals, exchanged, label_of_values
from fit_jax.evaluation.queries import answered, ask
from fit_jax.focus.example import Example, Spurious

EXAMPLE = Example("e-1", {"text": "A tea, TEA and teapot."}, ("no", "yes"), 1, {"drink": Spurious("tea", 0)})
OTHER = replace(EXAMPLE, uid="e-2", slots={"text": "Some Coffee"}, spurious={"drink": Spurious("Coffee", 1)})


def test_whole_words_are_exchanged_wherever_they_stand():
    found = exchanged(EXAMPLE, "drink", Spurious("Coffee", 1))
    assert found.slots == {"text": "A Coffee, Coffee and teapot."}
    assert found.spurious == {"drink": Spurious("Coffee", 1)}
    assert (found.label, found.candidates) == (1, ("no", "yes"))
    assert EXAMPLE.slots["text"] == "A tea, TEA and teapot."
    named = replace(EXAMPLE, slots={"text": "a coffee"}, spurious={"drink": Spurious("Coffee", 1)})
    assert exchanged(named, "drink", Spurious("Green Tea", 0)).slots == {"text": "a green tea"}


def test_a_value_that_does_not_stand_in_the_text_is_not_exchanged():
    assert exchanged(replace(EXAMPLE, slots={"text": "teapots"}), "drink", Spurious("Coffee", 1)) is None


def test_values_of_one_label_alone_are_known():
    assert label_of_values([EXAMPLE, OTHER]) == {"drink": {"tea": 0, "Coffee": 1}}
    both = replace(OTHER, spurious={"drink": Spurious("tea", 1)})
    assert label_of_values([EXAMPLE, OTHER, both]) == {}
    assert label_of_values([EXAMPLE]) == {}
    assert label_of_values([replace(EXAMPLE, own_answers=True), OTHER]) == {}


def test_the_other_value_has_another_label_and_is_drawn_by_the_seed(task):
    examples = [
        replace(EXAMPLE, uid=f"e-{n}", slots={"text": f"a {value}"}, spurious={"keyword": Spurious(value, n % 3)})
        for n, value in enumerate(("tea", "milk", "beer", "coffee", "juice", "wine") * 4)
    ]
    groups = [ask(task.text, "iid", e, ("heldout",), 0) for e in examples]
    found = counterfactuals(groups, examples, 0)
    assert len(found) == len([q for g in groups for q in g.queries])
    values = [(one.plain.example.spurious["keyword"], one.other.example.spurious["keyword"]) for one in found]
    assert all(own.label != other.label for own, other in values)
    assert len({other.value for own, other in values if own.value == "tea"}) > 1
    assert all(other.value in one.other.example.slots["text"] for one, (_, other) in zip(found, values))
    assert found == counterfactuals(groups, examples, 0) != counterfactuals(groups, examples, 1)


@pytest.mark.parametrize("follows", [True, False])
def test_changes_are_counted_by_type_and_text(task, follows):
    """Of a model that follows the instruction, and of one that answers with the keyword's label."""
    examples = task.splits["iid"].examples[:12]
    groups = [ask(task.text, "iid", e, ("heldout",), 0, 2) for e in examples]
    asked = counterfactuals(groups, examples, 0)

    def given(query):
        label = query.label if follows else query.example.spurious[query.feature].label
        return answered(query, [0.0 if n == label else -9.0 for n in range(2)], None)

    plain = {id(query): given(query) for group in groups for query in group.queries}
    found = {c.focus: c for c in changes(asked, plain, [given(one.other) for one in asked])}
    assert len(found) == 6
    for focus, change in found.items():
        spurious = focus.startswith("focus(spurious)")
        assert change.ought == (1.0 if spurious else 0.0)
        assert change.changed.value == (change.ought if follows else 1.0)
        assert change.changed.examples == len(examples)
