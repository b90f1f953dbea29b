import time

import numpy as np
import pytest

from fit_jax.data.layout import lay_out
from fit_jax.focus.prompts import EncodedPrompt


def prompt(tokens, *answers):
    return EncodedPrompt(np.array(tokens, np.int32), tuple(np.array(a, np.int32) for a in answers))


def visible(item, query):
    """The tree attention rule, one key at a time."""
    return [key for key in range(query + 1) if query < item.visible_until[key]]


def check(branches, answers):
    """Every answer's path through the item is the plain sequence prompt + answer, at positions 0, 1, ..."""
    item = lay_out(branches, answers)
    pairs = [(branch, number) for branch, chosen in zip(branches, answers) for number in chosen]
    assert item.slots == len(pairs)
    assert sorted(set(item.target_slot)) == list(range(len(pairs)))
    for slot, (branch, number) in enumerate(pairs):
        plain = [*branch.prompt, *branch.answers[number]]
        targets = np.flatnonzero(item.target_slot == slot)
        assert item.target_ids[targets].tolist() == branch.answers[number].tolist()
        for c, target in enumerate(targets):
            length = len(branch.prompt) + c
            path = visible(item, item.target_index[target])
            assert item.tokens[path].tolist() == plain[:length]
            assert item.positions[path].tolist() == list(range(length))
    used = {key for index in item.target_index for key in visible(item, index)}
    assert used == set(range(len(item.tokens))), "a token that no answer needs"
    for field in (
        item.tokens,
        item.positions,
        item.visible_until,
        item.target_index,
        item.target_ids,
        item.target_slot,
    ):
        assert field.dtype == np.int32
    return item


def test_single_prompt_is_the_plain_sequence():
    item = check([prompt([5, 6, 7], [8, 9, 1], [4, 1])], [[0]])
    assert item.tokens.tolist() == [5, 6, 7, 8, 9]
    assert item.positions.tolist() == [0, 1, 2, 3, 4]
    assert item.visible_until.tolist() == [5] * 5
    assert item.target_index.tolist() == [2, 3, 4]


def test_worked_tree():
    item = check([prompt([1, 2, 3], [7, 0]), prompt([1, 2, 4, 5], [7, 0], [8, 9, 0])], [[0], [0, 1]])
    assert item.tokens.tolist() == [1, 2, 3, 7, 4, 5, 7, 8, 9]
    assert item.positions.tolist() == [0, 1, 2, 3, 2, 3, 4, 4, 5]
    assert item.visible_until.tolist() == [9, 9, 4, 4, 9, 9, 7, 9, 9]
    assert item.target_index.tolist() == [2, 3, 5, 6, 5, 7, 8]
    assert item.target_slot.tolist() == [0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("prompts", "answers"),
    [
        pytest.param([[1, 2], [1, 2]], [[0], [1]], id="identical prompts"),
        pytest.param([[1, 2], [1, 2, 3]], [[0, 1], [0]], id="a prompt is a prefix of the next"),
        pytest.param([[1, 2, 3], [1, 2]], [[1], [0, 1]], id="a prompt is a prefix of the one before"),
        pytest.param([[1, 2], [3, 4]], [[0], [0]], id="nothing shared"),
        pytest.param([[1], [1, 2], [1, 2, 3]], [[2], [2, 0], [1]], id="nested prefixes, one-token answers"),
        pytest.param([[1, 2, 3]], [[0, 1, 2, 2]], id="an answer twice"),
    ],
)
def test_special_trees(prompts, answers):
    check([prompt(p, [6, 7, 0], [6, 8, 9, 0], [0]) for p in prompts], answers)


def test_random_trees():
    rng = np.random.default_rng(0)
    for _ in range(300):
        shared = rng.integers(0, 3, rng.integers(1, 6)).tolist()
        branches = [
            prompt(
                [*shared, *rng.integers(0, 3, rng.integers(0, 4))],
                *(rng.integers(0, 3, rng.integers(1, 5)) for _ in range(3)),
            )
            for _ in range(rng.integers(1, 7))
        ]
        check(branches, [rng.permutation(3)[: rng.integers(1, 4)].tolist() for _ in branches])


def test_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        lay_out([prompt([], [1, 0])], [[0]])


def test_speed():
    branch = prompt(range(40), [3, 1])
    start = time.process_time()
    for _ in range(1000):
        lay_out([branch], [[0]])
    assert time.process_time() - start < 0.25  # about 0.02 s on an idle machine
