"""Trains the run that a config describes, resumes it, and reports on it. Without a config it runs the demo."""

from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.config import Config, load_config
from fit_jax.options import Parser, add_changed_inputs, add_fields


def add_options(parser: Parser) -> None:
    """Every field of the config, and what to do where the inputs of a run have changed."""
    add_changed_inputs(parser)
    add_fields(parser, Config)
    parser.set_defaults(run=_train)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.train", __doc__, add_options, arguments)


def _train(given: Namespace) -> None:
    config = load_config(given.config)
    from fit_jax.parallel.processes import start
    from fit_jax.runs.job import train_and_report

    start(config.mesh)
    train_and_report(config, given.changed_inputs)


if __name__ == "__main__":
    run(main)
