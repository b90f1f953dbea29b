"""Does methods x seeds on one task, with statistics and figures. The run that they share is the section `run`."""

from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.options import Parser, add_fields


def add_options(parser: Parser) -> None:
    """Every field of the experiment and of its run, but those that each cell sets."""
    from fit_jax.experiment.config import DECIDED, ExperimentConfig

    add_fields(parser, ExperimentConfig, hidden=[option.removeprefix("--") for option in DECIDED])
    parser.set_defaults(run=_experiment)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.experiment", __doc__, add_options, arguments)


def _experiment(given: Namespace) -> None:
    from fit_jax.experiment.config import parse_experiment

    config = parse_experiment(given.config)
    from fit_jax.experiment.runner import run_experiment
    from fit_jax.parallel.processes import start

    start(config.run.mesh)
    run_experiment(config)


if __name__ == "__main__":
    run(main)
