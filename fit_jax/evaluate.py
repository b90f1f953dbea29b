"""`python -m fit_jax.evaluate RUN`: asks a trained model every focus type of every split, and writes its report.

With `--perplexity` or `--harness` it measures instead what the tuning did to the language model, before and after.

    RUN                       the run_dir of a training run
    --checkpoint WHICH        best (by validation, the default), last, or the number of a step
    --perplexity FILE         perplexity of the text of a file
    --harness TASK,TASK       tasks of lm-evaluation-harness
    --evaluation.FIELD VALUE  what is asked, in place of what the run's config says
    --mesh.FIELD VALUE        the devices to run on

`python -m fit_jax.train --help` lists the fields of `evaluation` and `mesh`.
"""

from pathlib import Path

from fit_jax.doors import checkpoint_option, split_folder, take_option
from fit_jax.errors import run_command

USAGE = (
    "python -m fit_jax.evaluate RUN [--checkpoint best|last|STEP] [--perplexity FILE] [--harness TASK,TASK] "
    "[--evaluation.FIELD VALUE] [--mesh.FIELD VALUE]"
)


def main(arguments: list[str]) -> None:
    """Takes the run's folder, the checkpoint, and overrides of the config that leave the model as it is."""
    folder, rest = split_folder(arguments, USAGE, __doc__)
    checkpoint, rest = take_option(rest, "checkpoint")
    text, rest = take_option(rest, "perplexity")
    tasks, rest = take_option(rest, "harness")
    which = checkpoint_option(checkpoint)
    from fit_jax.parallel.processes import failing_together, start
    from fit_jax.runs.before_after import report_harness, report_perplexity
    from fit_jax.runs.evaluating import evaluate_run
    from fit_jax.runs.run import set_up
    from fit_jax.runs.run_folder import opened_config

    config = opened_config(Path(folder), rest)
    start(config.mesh)
    with failing_together():
        run = set_up(config)
        if text is not None:
            report_perplexity(run, which, Path(text))
        if tasks is not None:
            report_harness(run, which, tasks.split(","))
        if text is None and tasks is None:
            evaluate_run(run, which)


if __name__ == "__main__":
    run_command(main)
