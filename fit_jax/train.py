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
    from fit_jax.parallel.processes import is_lead, start
    from fit_jax.runs.evaluating import evaluate_run, has_report
    from fit_jax.runs.run import set_up
    from fit_jax.runs.run_folder import claimed
    from fit_jax.runs.trainer import Ending, train

    start(config.mesh)
    with claimed(config):
        run = set_up(config, trains=True, changed=given.changed_inputs)
        ending = train(run)
        if is_lead():
            print(f"{run.folder}: {ending.value}", flush=True)
        # A report made before the last step, of a run that was told to stop, is of another model.
        trained = ending in (Ending.ALL_STEPS, Ending.PATIENCE)
        if trained or (ending is Ending.ALREADY and not has_report(run)):
            evaluate_run(run)


if __name__ == "__main__":
    run(main)
