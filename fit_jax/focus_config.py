"""Which focus instructions a run trains on, and where they stand: the section `focus` of a `Config`."""

from dataclasses import dataclass, field
from typing import Literal

from fit_jax.errors import InputError
from fit_jax.focus.spec import held_out_specs


@dataclass(frozen=True, kw_only=True)
class FocusConfig:
    """How focus instructions are drawn and where they stand (paper, section 3)."""

    # Relative weight of each focus type in training.
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "none": 1.0,
            "focus(core)": 1.0,
            "ignore(spurious)": 1.0,
            "focus(core) & ignore(spurious)": 1.0,
            "focus(spurious)": 1.0,
            "focus(spurious) & ignore(core)": 1.0,
        }
    )
    # The focus instruction stands `before` or `after` the input, or is the `system` turn of a chat template (the first
    # line without one); `after` lets branches share the input's attention.
    place: Literal["after", "before", "system"] = "after"
    # Focus instructions trained on per example and step, all sharing one pass over the input.
    branches: int = 6
    # Training paraphrases of each focus type, taken evenly from all there are; null means all.
    paraphrases: int | None = None
    # Share of the training examples whose text holds a decoy: a focus instruction, in a training paraphrase, that is
    # not to be obeyed.
    decoy_share: float = 0.0
    # Share of the training examples that have been asked about before in the same conversation, once or twice, under
    # other instructions; the last one holds.
    turn_share: float = 0.0
    # Share of the instructions about a spurious feature that name others of the example's features too, to be ignored:
    # `focus(keyword) & ignore(tag)`. 0 names one at a time.
    combinations: float = 0.0
    # Instructions of that kind that training never shows; they are evaluated apart.
    held_out: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InputError where a share is none, no paraphrase is left, or a held-out instruction is malformed."""
        if self.paraphrases is not None and self.paraphrases < 1:
            raise InputError(f"focus.paraphrases: {self.paraphrases}; a focus type needs at least one")
        for name in ("decoy_share", "turn_share", "combinations"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise InputError(f"focus.{name}: {share} is no share from 0 to 1")
        held_out_specs(self.held_out)
