"""Two sentences on what a report's numbers come to, whichever way they went."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fit_jax.evaluation.metrics import group_by, is_shifted, kind_of, main_set, pooled, share_of
from fit_jax.evaluation.queries import Prediction
from fit_jax.evaluation.reference_lines import reference_lines, speaks_of, without_repeats
from fit_jax.evaluation.statistics import Mean, share_over_seeds
from fit_jax.html import FEW

# From here on a share is called following, where it is also more than chance.
_FOLLOWS = 0.9
# What y and y_s asked for come to together, halved, at most where the instruction is not read.
_UNREAD = 0.5
_NOTHING = "Nothing was asked in which y and y_s differ, so that nothing tells whether an instruction is followed."


class Following(NamedTuple):
    """How often answers are what the instruction asks for, on texts whose y and y_s differ.

    Attributes:
        core: Share of right answers to the types that ask for y.
        spurious: Share of right answers to those that ask for y_s.
        both: The mean of the two over the texts that were asked for both: at most a half where answers do not depend
            on the instruction, for no answer is both y and y_s, however many answers there are.
        chance: What an answer at random reaches.
    """

    core: Mean
    spurious: Mean
    both: Mean
    chance: float

    @property
    def examples(self) -> int:
        """Texts that both kinds were asked about."""
        return self.both.examples

    @property
    def least(self) -> float:
        """The smaller share: that of a model which follows on one side alone is small."""
        return min(self.core.value, self.spurious.value)

    @property
    def judgement(self) -> str:
        """What the shares say, to stand after the name of a model."""
        core, spurious = (mean.share_interval()[0] > self.chance for mean in (self.core, self.spurious))
        if self.examples < FEW:
            return "was asked too little to tell whether it follows the focus instruction"
        if core and spurious and self.both.value <= _UNREAD:
            return "answers sometimes y and sometimes y_s, no more often what the instruction asks for than the other"
        if core and spurious and self.both.share_interval()[0] <= _UNREAD:
            return "beats chance on both sides, too uncertainly to tell whether it follows the focus instruction"
        if core and spurious:
            return f"follows the focus instruction{'' if self.least >= _FOLLOWS else ' in part'}"
        if core:
            return "answers with the true label y even where the instruction asks for y_s"
        if spurious:
            return "answers with y_s even where the instruction asks for the true label y"
        return "does not follow the focus instruction"

    def __str__(self) -> str:
        core, spurious = self.core.value, self.spurious.value
        return f"{core:.3f} of the answers are y where y is asked for, {spurious:.3f} are y_s where y_s is asked for"


def telling(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The answers that tell whether an instruction was followed: those where it decides between y and y_s.

    Of the main paraphrase set, and of splits of values seen in training that repeat no other.
    """
    return [p for p in _main(predictions) if p.core_label != p.spurious_label and p.focus != "none"]


def following(predictions: Sequence[Prediction]) -> Following | None:
    """Of one seed's predictions; None where no text is asked for both y and y_s, or these never differ."""
    asked = telling(predictions)
    kinds = [[p for p in asked if kind_of(p.focus) == kind] for kind in ("core", "spurious")]
    core, spurious = (group_by(of_kind, lambda p: (p.uid, p.cluster)) for of_kind in kinds)
    if not (texts := [text for text in core if text in spurious]):
        return None
    halves = [np.mean([np.mean([p.correct for p in of[text]]) for of in (core, spurious)]) for text in texts]
    both = share_over_seeds(np.array(halves)[:, None], [cluster for _, cluster in texts])
    core_share, spurious_share = map(share_of, kinds)
    return Following(core_share, spurious_share, both, chance(asked))


def chance(predictions: Sequence[Prediction]) -> float:
    """The share of right answers that answering at random reaches."""
    return float(np.mean([1 / len(p.log_probs) for p in predictions]))


def run_verdict(predictions: Sequence[Prediction]) -> str:
    """The verdict on one model: whether it follows, and where it does worst."""
    found = following(predictions)
    if found is None:
        return f"{_NOTHING} {_weakest(predictions)}"
    first = f"On the {found.examples:,} texts whose y and y_s differ, the model {found.judgement}: {found}."
    return f"{first} {_weakest(predictions)}"


def methods_verdict(found: Mapping[str, Following], reference: str) -> str:
    """The verdict on an experiment: the reference method, and the best of the others.

    Args:
        found: By the method's shown name; methods that were not asked for y_s are left out.
        reference: The shown name of the method that the others are compared with.
    """
    if reference not in found:
        return f"{_NOTHING} No method is judged."
    ours = found[reference]
    over = "one seed" if ours.core.seeds == 1 else f"mean over {ours.core.seeds} seeds"
    first = f"On the {ours.examples:,} texts whose y and y_s differ, {reference} {ours.judgement} ({over}): {ours}."
    others = {method: other for method, other in found.items() if method != reference}
    if not others:
        return f"{first} No other method stands beside it."
    best = max(others, key=lambda method: others[method].least)
    does = "does better" if others[best].least > ours.least else "comes closest"
    among = "" if len(others) == 1 else f"Of the {len(others)} others, "
    return f"{first} {among}{best} {does}: {others[best]}."


def _weakest(predictions: Sequence[Prediction]) -> str:
    """The cell with the lowest accuracy among those of enough examples, beside the reference rows of the tables."""
    own = _main(predictions)
    cells = {key: cell for key, cell in pooled(own).items() if cell.count >= FEW}
    if not cells:
        return f"No cell of the tables has {FEW} examples, so that none means something by itself."
    (_, split, focus), cell = min(cells.items(), key=lambda item: item[1].accuracy)
    rates = [by[split] for line, by in reference_lines(own).items() if split in by and speaks_of(line, kind_of(focus))]
    best = max(rates)
    beside = "above" if cell.ci_low > best else "below" if cell.ci_high < best else "no different from"
    return (
        f"It does worst under {focus} on the split {split}: {cell.accuracy:.3f} "
        f"[{cell.ci_low:.3f}, {cell.ci_high:.3f}] of {cell.count:,} examples, {beside} "
        f"the best reference row there ({best:.3f})."
    )


def _main(predictions: Sequence[Prediction]) -> list[Prediction]:
    paraphrases = main_set(p.paraphrases for p in predictions)
    return [p for p in without_repeats(predictions) if p.paraphrases == paraphrases and not is_shifted(p.split)]
