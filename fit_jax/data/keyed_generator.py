"""Random numbers that depend on a seed and a purpose alone, never on what was drawn before."""

import hashlib

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator keyed by the seed and by what the numbers are for.

    Two purposes give independent streams; the same (seed, purpose) gives the same stream on every machine and in
    every process, in whatever order the streams are asked for.
    """
    name = "\x1f".join(str(part) for part in (seed, *purpose))
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
