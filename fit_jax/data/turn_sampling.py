"""Which training examples have been asked about before, and how: a pure function of (seed, epoch, example)."""

from dataclasses import replace

from fit_jax.data.keyed_generator import generator
from fit_jax.focus.example import Example, TaskText, Turn
from fit_jax.focus.instructions import evenly, instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, SPURIOUS, focus_label, spec_for

_MOST = 2


class TrainingTurns:
    """Puts one or two earlier turns before a share of the training examples, each answered as its instruction asks.

    The instruction is of any focus type and feature, each as likely, in a training paraphrase; only the first turn may
    have none. What is asked and answered after them stays: the last instruction holds. Where that is none, the prompt
    encoder leaves the earlier turns out.
    """

    def __init__(self, text: TaskText, share: float, seed: int, paraphrases: int | None = None) -> None:
        """`share` of the examples of an epoch get some on average, of so many `paraphrases` of a type at most."""
        self._text = text
        self._share = share
        self._seed = seed
        self._most = paraphrases

    def shown(self, epoch: int, index: int, example: Example) -> Example:
        """The example number `index` as an epoch shows it."""
        chance, number, *choices = generator(self._seed, "turns", epoch, index).random(2 + 3 * _MOST).tolist()
        if chance >= self._share:
            return example
        count = 1 + int(number * _MOST)
        turns = [self._turn(example, bool(n), *choices[3 * n : 3 * n + 3]) for n in range(count)]
        return replace(example, earlier=tuple(turns))

    def _turn(self, example: Example, later: bool, focus: float, feature: float, paraphrase: float) -> Turn:
        text, features = self._text.of(example), list(example.spurious)
        types = [name for name in FOCUS_TYPES[later:] if features or SPURIOUS not in name]
        name = types[int(focus * len(types))]
        spec = spec_for(name, features[int(feature * len(features))] if features else "")
        sentences = evenly(paraphrases_of(text.name, name, "train"), self._most)
        words = instruction(text, spec, sentences[int(paraphrase * len(sentences))])
        return Turn(words, example.candidates[focus_label(example, spec)])
