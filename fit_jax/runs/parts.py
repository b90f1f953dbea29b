"""A run of a mixture as a run of one of its tasks, for what speaks of one task alone."""

from dataclasses import replace

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.runs.run import Run


def of_task(run: Run, name: str) -> Run:
    """The run as one of a task of its mixture: with the task's examples, prompts and config."""
    config = replace(run.config, task=run.config.task.each[list(run.task.parts).index(name)])
    return replace(run, config=config, task=run.task.parts[name], encoder=run.encoder.of_task(name))


def one_task(run: Run, part: str | None, remedy: str) -> Run:
    """The run itself, or of a mixture as one of the task that is named.

    Args:
        run: The run.
        part: The task; None where none was named.
        remedy: What to do where none was named and there are several, to stand before their names.

    Raises:
        InputError: There are several tasks and none is named, or there is no such one.
    """
    if not run.task.parts:
        if part is not None:
            raise InputError(
                f"--part {shown(part)}: the run is of one task, {run.task.text.name}; leave the option out"
            )
        return run
    names = ", ".join(run.task.parts)
    if part is None:
        raise InputError(f"{shown(str(run.folder))}: is a run of several tasks; {remedy} ({names})")
    if part not in run.task.parts:
        raise InputError(f"--part {shown(part)}: the run has no such task; it has {names}")
    return of_task(run, part)
