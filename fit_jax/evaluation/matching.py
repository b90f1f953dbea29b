"""Which candidate a freely written answer means, if any (paper, section 4.4: BBQ-NLG).

The rule, on words without case, punctuation and articles: the answer is a candidate word for word; or else it contains
one candidate's words in a row, where a candidate within a longer one that is contained too does not count; an answer
that contains several, or none, means no candidate. Words alone count: "not the man" contains "the man".
"""

import re
import unicodedata
from collections.abc import Sequence

UNPARSEABLE = -1
_ARTICLES = frozenset(("a", "an", "the"))


def match(text: str, candidates: Sequence[str]) -> int:
    """Index of the candidate that the text means, the first of equal ones, or `UNPARSEABLE`."""
    said = normalise(text)
    words = {normalise(candidate): number for number, candidate in reversed(list(enumerate(candidates)))}
    if said and said in words:
        return words[said]
    contained = [candidate for candidate in words if _holds(said, candidate)]
    longest = [c for c in contained if not any(c != other and _holds(other, c) for other in contained)]
    return words[longest[0]] if len(longest) == 1 else UNPARSEABLE


def normalise(text: str) -> tuple[str, ...]:
    """The text's words: case folded, without punctuation, and without articles unless there is nothing else."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"(?<=\w)['’](?=\w)", "", plain)  # can't -> cant
    words = re.findall(r"\w+", plain.replace("_", " "))
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words)


def _holds(words: Sequence[str], part: Sequence[str]) -> bool:
    n = len(part)
    return n > 0 and any(tuple(words[i : i + n]) == tuple(part) for i in range(len(words) - n + 1))
