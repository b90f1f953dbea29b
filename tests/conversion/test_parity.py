"""How far the logits of two models lie apart, and how much of it the dtype of their files explains."""

import numpy as np
import pytest

from fit_jax.conversion.parity import TOLERANCE, compare

FIRST = np.array([[[0.0, 1.0, -4.0], [2.0, 1.0, 0.0]]])


def test_logits_are_compared_by_difference_scale_and_likeliest_token():
    second = FIRST + np.array([[[0.0, -0.5, 0.0], [-1.5, 0.0, 0.0]]])
    found = compare(FIRST, second)
    assert (found.largest, found.scale, found.same_argmax) == (1.5, 4.0, 0.5)
    assert found.mean == pytest.approx(2.0 / 6)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_dtype_explains_so_much_of_the_largest_logit(dtype):
    for share, explained in ((0.99, True), (1.01, False)):
        second = FIRST.copy()
        second[0, 0, 2] += share * TOLERANCE[dtype] * 4.0
        assert compare(FIRST, second).within(dtype) is explained


def test_no_dtype_explains_what_is_no_number():
    assert not compare(FIRST, FIRST * np.nan).within("bfloat16")
