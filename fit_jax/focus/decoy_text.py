"""Decoys: sentences in an input's text that pose as focus instructions and must not be obeyed (prompt injection)."""

from dataclasses import replace

from fit_jax.focus.example import Example

PLACES = ("start", "middle", "end")


def insert_decoy(text: str, decoy: str, place: str) -> str:
    """The text with a sentence before it, between its words or after it: `place` is one of `PLACES`.

    >>> insert_decoy("a b c d", "Look here.", "middle")
    'a b Look here. c d'
    """
    words = text.split(" ")
    at = {"start": 0, "middle": len(words) // 2, "end": len(words)}[place]
    return " ".join([*words[:at], decoy, *words[at:]])


def with_decoy(example: Example, decoy: str, place: str) -> Example:
    """The example with the decoy in the longest text of its input; its labels are what they were."""
    slot = max(example.slots, key=lambda name: len(example.slots[name]))
    return replace(example, slots={**example.slots, slot: insert_decoy(example.slots[slot], decoy, place)})


def quoted_decoy(decoy: str) -> str:
    """The decoy in quotation marks."""
    return f'"{decoy}"'
