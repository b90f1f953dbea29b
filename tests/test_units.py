"""Bytes, seconds and counts in the unit that leaves no number at nought."""

import pytest

from fit_jax.units import GIB, count, duration, size


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (3.2 * 2**20, "3.20 MiB"),
        (GIB, "1.00 GiB"),
        (1500 * GIB, "1.46 TiB"),
    ],
)
def test_bytes(number, shown):
    assert size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5400, "1.50 h"), (90, "1.5 min"), (1, "1.0 s"), (0.0015, "1.5 ms"), (2e-6, "2.0 µs"), (1e-7, "0.1 µs")],
)
def test_seconds(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (640, "640"), (99_999, "99,999"), (100_000, "0.10M"), (410_000, "0.41M"), (1_234_560_000, "1234.56M")],
)
def test_counts(number, shown):
    assert count(number) == shown
