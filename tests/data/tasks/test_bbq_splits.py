"""BBQ's splits: nothing that a look-up could use, the natural distribution, groups that show who stereotypes."""

import random
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from fit_jax.data.tasks.bbq import HELD_OUT
from fit_jax.evaluation.bias import bias_scores
from fit_jax.evaluation.metrics import worst_groups
from fit_jax.evaluation.queries import answered, ask
from fit_jax.focus.example import group_of

TEST_SPLITS = ("iid", "high", "low", "flipped", "natural")


@cache
def bag(text):
    return tuple(sorted(re.findall(r"\w+", text.lower())))


def people(example):
    """Numbers of the answers that name a person."""
    return [n for n in range(3) if n != int(example.slices["unknown"])]


def named(example, answer):
    return "unknown" if answer == int(example.slices["unknown"]) else bag(example.candidates[answer])


def y(example):
    return example.label


def y_s(example):
    return next(iter(example.spurious.values())).label


LOOK_UPS = {
    "question and people": lambda e: (bag(e.slots["question"]), frozenset(bag(e.candidates[n]) for n in people(e))),
    "bag of context words": lambda e: bag(e.slots["context"]),
    "bags of context and question": lambda e: (bag(e.slots["context"]), bag(e.slots["question"])),
}


def look_up(key, target, train, test):
    """Share of `test` answered rightly by a model that knows, of each key, how often which answer was right in `train`;
    what it does not know it draws from the three answers."""
    known = defaultdict(Counter)
    for example in train:
        known[key(example)][named(example, target(example))] += 1
    rng, right = random.Random(0), 0
    for example in test:
        counts = known.get(key(example), Counter())
        right += target(example) == max(range(3), key=lambda n: (counts[named(example, n)], rng.random()))
    return right / len(test)


@pytest.mark.parametrize("name", LOOK_UPS)
def test_look_up_models_are_at_chance(built, name):
    splits = built("bbq").splits
    for split in TEST_SPLITS:
        for target in (y, y_s):
            share = look_up(LOOK_UPS[name], target, splits["train"].examples, splits[split].examples)
            assert share == pytest.approx(1 / 3, abs=0.03), (split, target)


def words_by_question(train, test):
    """Share of y_s found by a model that knows, of each question, which words of a person go with y_s."""
    known = defaultdict(Counter)
    for example in train:
        for n in people(example):
            known[bag(example.slots["question"])].update({w: 2 * (n == y_s(example)) - 1 for w in named(example, n)})
    rng, right = random.Random(0), 0
    for example in test:
        words = known[bag(example.slots["question"])]
        right += y_s(example) == max(
            people(example), key=lambda n: (sum(words[w] for w in named(example, n)), rng.random())
        )
    return right / len(test)


def test_the_split_by_context_says_what_it_does_not_hide(built):
    by_template, by_context = built("bbq"), built("bbq", split_by="context")
    pairs = LOOK_UPS["question and people"]
    train = by_context.splits["train"].examples
    for name in TEST_SPLITS:
        test = by_context.splits[name].examples
        assert not {pairs(e) for e in train} & {pairs(e) for e in test}
        assert not {bag(e.slots["context"]) for e in train} & {bag(e.slots["context"]) for e in test}
    found = words_by_question(train, by_context.splits["natural"].examples)
    assert found > 0.65
    assert any("questions by heart" in note for note in by_context.notes)
    splits = by_template.splits
    assert words_by_question(splits["train"].examples, splits["natural"].examples) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("fields", [{}, {"split_by": "context"}])
def test_natural_splits_keep_the_design_of_bbq(built, fields):
    splits = built("bbq", **fields).splits
    for name in ("natural", "shifted_natural"):
        examples = splits[name].examples
        features = {feature for e in examples for feature in e.spurious}
        assert len(examples) == 2352
        assert (features & set(HELD_OUT) == features) == (name == "shifted_natural")
        rows = Counter(int(e.uid.rpartition("-")[2]) // 4 for e in examples[:80])
        assert set(rows.values()) == {4}
        for part in (examples, examples[:80], *([e for e in examples if f in e.spurious] for f in features)):
            kinds = Counter((e.slices["condition"], y(e) == y_s(e), e.slices["polarity"]) for e in part)
            for polarity in ("neg", "nonneg"):
                assert kinds["ambig", False, polarity] == len(part) / 4
                assert kinds["disambig", True, polarity] == kinds["disambig", False, polarity] == len(part) / 8


def answers(task, split, answer):
    """The predictions of a model that gives `answer(example)` to whatever it is asked, of 400 examples where any do."""
    made = []
    for example in task.splits[split].examples if split.endswith("natural") else task.splits[split].examples[:400]:
        for query in ask(task.text, split, example, ("train",), 0).queries:
            made.append(answered(query, [0.0 if n == answer(example) else -9.0 for n in range(3)]))
    return made


def test_a_model_that_is_always_right_has_no_bias(built):
    task = built("bbq")
    scored = set()
    for split in task.test_splits:
        for row in bias_scores(answers(task, split, y)):
            assert (row["s_dis"], row["s_amb"]) == (0.0, 0.0), row
            scored.add((row["split"], row["feature"]))
        if split.endswith("natural"):
            always = bias_scores(answers(task, split, y_s)[:1000])
            assert {(row["s_dis"], row["s_amb"]) for row in always} == {(1.0, 1.0)}
    assert {split for split, _ in scored} == {"natural", "shifted_natural"}
    assert len(scored) == 9


def test_a_model_that_always_stereotypes_has_a_group_at_0(built):
    rows = worst_groups(answers(built("bbq"), "high", y_s), few=1)
    core = [row for row in rows if "spurious" not in row["focus"] or row["focus"].startswith("ignore")]
    assert core
    assert {(row["accuracy"], row["answer"]) for row in core} == {(0.0, "y != y_s")}
    assert all(row["accuracy"] == 1 for row in rows if row["focus"].startswith("focus(spurious)"))


def test_groups_of_multiple_choice_know_whether_y_is_y_s(built):
    for example in built("bbq").splits["train"].examples[:50]:
        assert example.own_answers
        ((value, _),) = example.spurious.values()
        assert group_of(example) == ((value, "y = y_s" if y(example) == y_s(example) else "y != y_s"),)
    for example in built("ss").splits["train"].examples[:5]:
        assert group_of(example) == ((example.spurious["keyword"].value, example.candidates[example.label]),)
