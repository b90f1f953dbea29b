"""What never stands on both sides of BBQ's splits."""

import re
from collections import Counter, defaultdict
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fit_jax.config import TaskConfig
from fit_jax.data.malformed import Malformed
from fit_jax.data.tasks.bbq_sides import components, context_keys, template_keys
from fit_jax.data.tasks.bbq_source import CATEGORIES, read_category, read_metadata


@cache
def bag(text):
    return tuple(sorted(re.findall(r"\w+", text.lower())))


@pytest.fixture(scope="module")
def items(data_dir):
    config = TaskConfig(name="bbq", data_dir=str(data_dir))
    metadata, bad = read_metadata(config), Malformed("error")
    return [item for c in CATEGORIES for item in read_category(config, c, metadata, bad, Counter())]


def test_what_templates_are_one(items):
    number = dict(zip((item.template for item in items), template_keys(items).tolist()))
    # Named after the same people by group and by name; asked the same; told nearly the same, of the wife or the spouse.
    for a, b in (
        ("Gender_identity 1", "Gender_identity 26"),
        ("Gender_identity 18", "Gender_identity 40"),
        ("Gender_identity 4", "Gender_identity 50"),
        ("Race_ethnicity 2", "Race_x_gender 1"),
        ("Race_ethnicity 16", "Race_x_gender 7"),
    ):
        assert number[a] == number[b], (a, b)
    assert len(set(number.values())) == 259
    assert Counter(number.values()).most_common(1)[0][1] <= 5


def test_twins_and_name_swaps_share_a_key(items):
    for keys in (template_keys(items), context_keys(items)):
        for of in (
            lambda item: item.number,
            lambda item: (bag(item.slots["question"]), frozenset(bag(item.slots[f"ans{n}"]) for n in range(3))),
            lambda item: (item.template, bag(item.story)),
        ):
            seen = defaultdict(set)
            for item, key in zip(items, keys.tolist()):
                seen[of(item)].add(key)
            assert all(len(group) == 1 for group in seen.values())
    assert len(set(context_keys(items).tolist())) > 5000


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), max_size=12))
@settings(deadline=None, max_examples=60)
def test_components_are_joined_by_chains(groups):
    numbers = components(groups)
    assert set(numbers) == {member for group in groups for member in group}
    joined = [set(group) for group in groups]  # merged the slow way
    for _ in groups:
        for a in joined:
            for b in joined:
                if a & b:
                    a |= b
                    b |= a
    for a in numbers:
        for b in numbers:
            assert (numbers[a] == numbers[b]) == (a == b or any({a, b} <= group for group in joined))
