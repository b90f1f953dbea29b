"""`python -m fit_jax.experiment --config FILE`: methods x seeds on one task, with statistics and figures.

Options are `--config FILE`, any field of the experiment, `--field VALUE`, and of its run, `--run.section.field VALUE`.
"""

import sys

from fit_jax.errors import run_command


def main(arguments: list[str]) -> int:
    """Takes `--config FILE` and `--field value` overrides; the run's own fields are `--run.section.field value`."""
    from fit_jax.experiment.config import parse_experiment

    config = parse_experiment(arguments, __doc__)
    from fit_jax.experiment.runner import run_experiment
    from fit_jax.parallel.processes import failing_together, start
    from fit_jax.training.loop import TrainingFailed

    start(config.run.mesh)
    with failing_together():
        try:
            run_experiment(config)
        except TrainingFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    run_command(main)
