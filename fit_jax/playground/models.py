"""The models that a page asks: one, or two that take the same texts and features."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import fit_jax
from fit_jax.api import Checkpoint, FocusModel
from fit_jax.errors import InputError
from fit_jax.foreign import named, shown

BEFORE = "before tuning"


def load_models(
    first: FocusModel,
    folder: str,
    other: str | None,
    checkpoint: Checkpoint,
    before: bool,
    trust_code: bool = False,
) -> dict[str, FocusModel]:
    """The models by what they are called on the page.

    Args:
        first: The model of the run folder.
        folder: That folder, as the user calls it.
        other: Another one to compare with, which is shown first where it is the model before tuning.
        checkpoint: Of both.
        before: Whether to compare with the model before tuning.
        trust_code: As `fit_jax.load`'s.

    Raises:
        InputError: A folder holds no trained run, or the two cannot be asked the same.
    """
    names = _names(folder, other)
    if before:
        return {BEFORE: fit_jax.load(folder, 0, trust_code=trust_code), names[0]: first}
    if other is None:
        return {names[0]: first}
    second = fit_jax.load(other, checkpoint, trust_code=trust_code)
    for what in ("slots", "features", "candidates"):
        mine, theirs = getattr(first, what), getattr(second, what)
        if mine != theirs:
            said = [shown(", ".join(own)) for own in (theirs, mine)]
            raise InputError(
                f"{shown(names[1])}: has the {what} {said[0]} where the other run has {said[1]}; compare runs of a task"
            )
    return dict(zip(names, (first, second)))


def warm_up(models: Mapping[str, FocusModel]) -> None:
    """Asks each model once, so that what it needs for the next questions is compiled."""
    for model in models.values():
        texts = dict.fromkeys(model.slots, "word")
        candidates = () if model.candidates else ("yes", "no")
        with suppress(InputError):  # the question itself will tell it
            model.ask_all(texts, candidates)
            model.ask(texts, candidates=candidates)


def _names(folder: str, other: str | None) -> tuple[str, ...]:
    """What runs are called: by their folders, with those above where they would be called the same."""
    paths = [Path(name).resolve() for name in (folder, other) if name is not None]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = tuple("/".join(path.parts[-depth:]) for path in paths)
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{named(folder)} and {named(str(other))}: are one run; name two, or compare with --before")
