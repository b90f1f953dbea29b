"""Which columns tell the label, beyond chance and beyond what the words tell."""

import numpy as np
import pytest

from fit_jax.data.association import bag_of_words, evidence, information


def test_permutations_pass_a_weak_shortcut_and_no_noise():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    noise = {f"noise {n}": rng.integers(0, 2 + n, 2000) for n in range(20)}
    weak = np.where(rng.random(2000) < 0.58, y, 1 - y)
    found = {row.name: row for row in evidence({"weak": weak, **noise}, y, np.zeros(2000, int))}
    assert [name for name, row in found.items() if row.passes] == ["weak"]
    for name, row in found.items():
        values = 2 if name == "weak" else 2 + int(name.split()[1])
        assert row.chance == pytest.approx((values - 1) / (2 * 2000 * np.log(2)), rel=0.5)


def test_what_the_words_tell_is_not_counted_twice():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    topic = np.where(rng.random(2000) < 0.9, y, 1 - y)
    sender = np.where(rng.random(2000) < 0.9, y, 1 - y)
    texts = [f"about topic{t} and filler{rng.integers(9)}" for t in topic]
    words = bag_of_words(texts, y)
    assert information(words, topic) > 0.95
    found = {row.name: row for row in evidence({"topic": topic, "sender": sender}, y, words)}
    assert found["topic"].bits > 0.4
    assert found["topic"].beyond_words < 0.01
    assert found["sender"].beyond_words > 0.2
