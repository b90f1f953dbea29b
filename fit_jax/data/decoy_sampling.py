"""Which training examples hold a decoy, and which: a pure function of (seed, epoch, example)."""

from fit_jax.data.keyed_generator import generator
from fit_jax.focus.decoy_text import PLACES, quoted_decoy, with_decoy
from fit_jax.focus.example import Example, TaskText
from fit_jax.focus.instructions import evenly, instruction, paraphrases_of
from fit_jax.focus.spec import FOCUS_TYPES, SPURIOUS, spec_for

# Share of the decoys that stand in quotation marks.
_QUOTED = 0.25


class TrainingDecoys:
    """Puts a focus instruction into the text of a share of the training examples; what they are to answer stays.

    The instruction is of any focus type and feature, each as likely, in a training paraphrase, at any of `PLACES`.
    """

    def __init__(self, text: TaskText, share: float, seed: int, paraphrases: int | None = None) -> None:
        """Words every instruction of every task, of each type so many `paraphrases` at most.

        `share` of the examples of an epoch get one on average.
        """
        self._text = text
        self._share = share
        self._seed = seed
        self._pools = {each.name: _pools(each, paraphrases) for each in text.each}

    def shown(self, epoch: int, index: int, example: Example) -> Example:
        """The example number `index` as an epoch shows it."""
        chance, pool, paraphrase, place, quoted = generator(self._seed, "decoy", epoch, index).random(5).tolist()
        if chance >= self._share:
            return example
        pools = self._pools[self._text.of(example).name]
        words = pools[int(pool * len(pools))]
        decoy = words[int(paraphrase * len(words))]
        return with_decoy(example, quoted_decoy(decoy) if quoted < _QUOTED else decoy, PLACES[int(place * len(PLACES))])


def _pools(text: TaskText, most: int | None) -> list[list[str]]:
    return [
        [
            instruction(text, spec_for(focus, feature), p)
            for p in evenly(paraphrases_of(text.name, focus, "train"), most)
        ]
        for feature in text.spurious or ("",)
        for focus in FOCUS_TYPES
        if focus != "none" and (feature or SPURIOUS not in focus)
    ]
