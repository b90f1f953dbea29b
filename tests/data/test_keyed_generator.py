"""Random generators by seed and purpose."""

import numpy as np

from fit_jax.data.keyed_generator import generator


def test_generator_depends_on_seed_and_purpose_alone():
    first = generator(3, "order", 1).random(4)
    generator(3, "other").random(100)
    assert np.array_equal(first, generator(3, "order", 1).random(4))
    assert not np.array_equal(first, generator(3, "order", 2).random(4))
    assert not np.array_equal(first, generator(4, "order", 1).random(4))
    assert np.array_equal(first, generator(np.int64(3), "order", np.int32(1)).random(4))
