"""The texts of a run beside its task: what it rehearses, and what is only measured."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fit_jax.data.rehearsal import RehearsalRows, measured_items
from fit_jax.data.rehearsal_texts import RehearsalTexts
from fit_jax.errors import InputError
from fit_jax.evaluation.text_perplexity import MeasuredTexts
from fit_jax.parallel.processes import is_lead, on_all
from fit_jax.runs.run import Run

_REHEARSAL, _MEASURED = "rehearsal.files", "evaluation.texts"
# Tokens of a file that are measured, about: enough for three digits of a perplexity.
_TOKENS = 1 << 16


def rehearsal_rows(run: Run) -> RehearsalRows | None:
    """The rows of rehearsal of each step; None where the run has none.

    Raises:
        InputError: A file is missing or empty, or has malformed rows.
    """
    asked, train = run.config.rehearsal, run.config.train
    if not asked.files:
        return None
    return RehearsalRows(_texts(run, asked.files, _REHEARSAL), asked.rows, train.sequence_length, run.config.seed)


def check_measured(run: Run) -> None:
    """Reads the files of `evaluation.texts`; errors as `rehearsal_rows`."""
    for name in run.config.evaluation.texts:
        _texts(run, (name,), _MEASURED)


def measured_texts(run: Run, rehearsed: bool) -> list[MeasuredTexts]:
    """What the report measures the perplexity of: a part of each file of `evaluation.texts`, and of what is rehearsed.

    Args:
        run: The run.
        rehearsed: Whether those of `rehearsal.files` are asked for; the lead tells where they are gone.

    Raises:
        InputError: As `rehearsal_rows`, of a file of `evaluation.texts`.
    """
    asked = [(name, _MEASURED) for name in run.config.evaluation.texts]
    if rehearsed:
        asked = [(name, _REHEARSAL) for name in run.config.rehearsal.files] + asked
    found = []
    for name, field in asked:
        try:
            texts = on_all(partial(_texts, run, (name,), field))
        except InputError as error:
            if field == _MEASURED:
                raise
            if is_lead():
                print(f"the report does not measure what was rehearsed: {error}", flush=True)
            continue
        items = measured_items(texts, run.config.train.sequence_length, _TOKENS)
        found.append(MeasuredTexts(Path(name).name, field == _REHEARSAL, items))
    return found


def _texts(run: Run, files: Sequence[str], field: str) -> RehearsalTexts:
    return RehearsalTexts(files, run.encoder.tokenizer, run.config.tokenizer.template, field)
