"""`python -m fit_jax.steer RUN --text "..."`: one text under each focus instruction, answers side by side.

    RUN                 the run_dir of a training run
    --text "..."        the text; without it and --slot, texts are read until the end of input
    --slot NAME="..."   the text of a slot, for tasks whose input has several; may be repeated
    --focus A,B         features to focus on, `core` included; without it and --ignore, every focus type is asked
    --ignore C          features to ignore
    --candidate "..."   an answer to choose among, in place of the task's own; may be repeated
    --checkpoint WHICH  best (by validation, the default), last, or the number of a step
    --mesh.FIELD VALUE  the devices to run on

`python -m fit_jax.train --help` lists the fields of `mesh`.
"""

from pathlib import Path

from fit_jax.doors import checkpoint_option, split_folder, take_option, take_options
from fit_jax.errors import run_command

USAGE = (
    'python -m fit_jax.steer RUN [--text "..."] [--slot NAME="..."]... [--focus A,B] [--ignore C] '
    '[--candidate "..."]... [--checkpoint best|last|STEP] [--mesh.FIELD VALUE]'
)


def main(arguments: list[str]) -> None:
    """Takes the run's folder and the text; asks for texts until the end of input where none is given."""
    folder, rest = split_folder(arguments, USAGE, __doc__)
    checkpoint, rest = take_option(rest, "checkpoint")
    text, rest = take_option(rest, "text")
    slots, rest = take_options(rest, "slot")
    focus, rest = take_option(rest, "focus")
    ignore, rest = take_option(rest, "ignore")
    candidates, rest = take_options(rest, "candidate")
    from fit_jax.evaluation.interactive import Steering, read_slots
    from fit_jax.evaluation.report import print_table
    from fit_jax.parallel.processes import failing_together, start
    from fit_jax.runs.run import set_up, subject
    from fit_jax.runs.run_folder import opened_config

    config = opened_config(Path(folder), rest)
    start(config.mesh)
    with failing_together():
        run = set_up(config)
        steering = Steering(run.task, focus, ignore, candidates)
        given = [steering.fill(text, slots)] if text is not None or slots else read_slots(steering.slots)
        model = subject(run, checkpoint_option(checkpoint))
        for filled in given:
            print_table(steering.table(model, filled))


if __name__ == "__main__":
    run_command(main)
