"""Single words that tell the label, and what kind of word each is: a likely shortcut, a function word, or content.

Correlations follow the competency problems of Gardner et al. 2021: where no single token tells the label, the share of
a label among the examples that hold a token is binomial around the label's share in all; the z-score of that share says
how far the data are from it. Tokens whose z-score is too large to be chance, over all tokens tested, are reported.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from fit_jax.data.association import words_of
from fit_jax.focus.example import Example

# Family-wise error rate: the probability that any token of data without shortcuts is reported.
LEVEL = 0.01
# A token in fewer examples has no z-score that means much.
FEWEST = 20

Kind = Literal["shortcut", "function word", "content"]
# English words that serve grammar; they say how something is put, negation among it, and seldom what it is about.
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
    a an the this that these those such same other another some any no none each every either neither both all half many
    much more most few fewer less least several enough i me my mine myself we us our ours ourselves you your yours
    yourself yourselves he him his himself she her hers herself it its itself they them their theirs themselves one
    ones someone anyone everyone nobody somebody anybody everybody something anything everything nothing who whom whose
    which what whoever whatever whichever where when why how be am is are was were been being do does did done doing
    have has had having will would shall should can could may might must ought not never nor and or but so yet if unless
    until while whereas because although though since as than then thus hence therefore however still also too only just
    even ever already again about above across after against along among around at before behind below beneath beside
    between beyond by down during except for from in inside into like near of off on onto out outside over past per
    through throughout till to toward towards under up upon via with within without here there now very quite rather
    almost yes please i'm i've i'd i'll you're you've you'd you'll he's she's it's we're we've we'll they're they've
    they'll that's there's what's don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't cannot couldn't
    shouldn't haven't hasn't hadn't
    """,
    )
)


@dataclass(frozen=True)
class TokenRow:
    """A token that tells the label.

    Attributes:
        split: Where.
        token: The word, in lower case.
        kind: What kind of word it is, as far as its form tells.
        label: The label that it goes with.
        count: Examples that hold it.
        share: The label's share among these.
        base: The label's share in all.
        z: How far apart the two are.
    """

    split: str
    token: str
    kind: Kind
    label: str
    count: int
    share: float
    base: float
    z: float


def label_name(example: Example) -> str:
    """The true answer; where each row has answers of its own, its number."""
    return f"answer {example.label}" if example.own_answers else example.candidates[example.label]


def token_rows(name: str, examples: Sequence[Example]) -> tuple[list[TokenRow], int, float]:
    """As `telling_words`, of the examples of a split."""
    values = {word for e in examples for spurious in e.spurious.values() for word in words_of(spurious.value)}
    return telling_words(name, ((" ".join(e.slots.values()), label_name(e)) for e in examples), values)


def telling_words(
    name: str, labelled: Iterable[tuple[str, str]], values: Collection[str]
) -> tuple[list[TokenRow], int, float]:
    """Words over-represented with some label by more than chance.

    Args:
        name: Of the split, for the rows.
        labelled: Texts with their labels.
        values: Words of the features' values, which are shortcuts by the description.

    Returns:
        The words, how many (word, label) pairs were tested, and the z-score beyond which one is reported (two-sided,
        Bonferroni at `LEVEL`).
    """
    base: Counter[str] = Counter()
    holds: Counter[str] = Counter()
    with_label: dict[str, Counter[str]] = defaultdict(Counter)
    lower: set[str] = set()
    for text, label in labelled:
        base[label] += 1
        words = set(words_of(text))
        lower |= words & set(re.findall(r"[\w'’]+", text))
        for word in words:
            holds[word] += 1
            with_label[word][label] += 1
    total = base.total()
    frequent = [word for word, n in holds.items() if n >= FEWEST]
    tested = len(frequent) * len(base)
    threshold = NormalDist().inv_cdf(1 - LEVEL / max(tested, 1) / 2)
    rows = []
    for word in frequent:
        n = holds[word]
        for label, m in base.items():
            # Without a shortcut the examples that hold the token are a draw without replacement of all examples.
            p = m / total
            spread = math.sqrt(p * (1 - p) / n * (total - n) / max(total - 1, 1))
            share = with_label[word][label] / n
            # Half a count towards the mean: the share moves in steps, and the normal curve does not.
            gap = max(abs(share - p) - 0.5 / n, 0)
            z = math.copysign(gap / spread, share - p) if spread else 0.0
            if z > threshold:
                kind = _kind(word, word in values, word in lower)
                rows.append(TokenRow(name, word, kind, label, n, share, p, z))
    return rows, tested, threshold


def _kind(word: str, is_value: bool, in_lower: bool) -> Kind:
    """Names, numbers and codes are likely shortcuts: always with a capital, or with a digit in them."""
    if is_value:
        return "shortcut"
    if word.replace("’", "'") in _FUNCTION_WORDS:
        return "function word"
    return "content" if in_lower and not any(map(str.isdigit, word)) else "shortcut"
