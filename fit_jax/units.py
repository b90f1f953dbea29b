"""Bytes, seconds and counts as people read them: three digits or so, in the largest unit of which there is one."""

GIB = 2**30

_SIZES = ((2**40, "TiB"), (GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES = ((3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def size(number: float) -> str:
    """Bytes, such as `3.20 MiB`."""
    unit, name = next((pair for pair in _SIZES if number >= pair[0]), (1, "bytes"))
    return f"{number / unit:.2f} {name}" if unit > 1 else f"{number:.0f} {name}"


def count(number: int) -> str:
    """How many there are, such as `1,234` and, from 100,000 on, `0.12M`."""
    return f"{number / 1e6:.2f}M" if number >= 100_000 else f"{number:,}"


def duration(seconds: float) -> str:
    """Seconds, such as `1.5 ms`."""
    unit, name = next((pair for pair in _TIMES if seconds >= pair[0]), _TIMES[-1])
    return f"{seconds / unit:.{1 if unit < 3600 else 2}f} {name}"
