"""Comparison of floats by the scale of what is compared, so that a bound holds on every processor."""

import numpy as np


def apart(actual: object, expected: object) -> float:
    """The largest difference, by the largest magnitude expected."""
    wanted = np.asarray(expected)
    return float(np.abs(np.asarray(actual) - wanted).max() / np.abs(wanted).max())


def assert_close(actual: object, expected: object, tolerance: float, err_msg: str = "") -> None:
    """Asserts that no element differs by more than `tolerance` times the largest finite magnitude expected."""
    wanted = np.asarray(expected)
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)) or 1.0
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=0, atol=tolerance * scale, err_msg=err_msg)
