"""Does methods x seeds on one task, with statistics and figures. The run that they share is the section `run`.

With `--plan TOPOLOGY` it tells hours and, with `--price`, cost of the cells that are not done, and starts nothing; the
status is 1 where one of them does not fit.
"""

import math
from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.errors import InputError
from fit_jax.options import Parser, add_fields


def add_options(parser: Parser) -> None:
    """Every field of the experiment and of its run, but those that each cell sets."""
    from fit_jax.experiment.config import DECIDED, ExperimentConfig

    about = "tell what the experiment takes on this machine, as in v5e:2x2 or h100:1, and start nothing"
    parser.add_argument("--plan", metavar="TOPOLOGY", help=about)
    parser.add_argument("--price", metavar="DOLLARS", help="of a chip for an hour, with --plan", type=float)
    add_fields(parser, ExperimentConfig, hidden=[option.removeprefix("--") for option in DECIDED])
    parser.set_defaults(run=_experiment)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.experiment", __doc__, add_options, arguments)


def _experiment(given: Namespace) -> int:
    from fit_jax.experiment.config import parse_experiment

    if given.price is not None and (given.plan is None or not 0 <= given.price < math.inf):
        raise InputError(f"--price {given.price}: must be an amount from 0 up, given with --plan")
    config = parse_experiment(given.config)
    if given.plan is not None:
        from fit_jax.experiment.grid_plan import fits, plan_grid, print_grid
        from fit_jax.parallel.topology import Topology

        topology = Topology.parse(given.plan)
        rows = plan_grid(config, topology)
        print_grid(rows, topology, given.price)
        return 0 if all(fits(row, topology) for row in rows) else 1
    from fit_jax.experiment.runner import run_experiment
    from fit_jax.parallel.processes import start

    start(config.run.mesh)
    run_experiment(config)
    return 0


if __name__ == "__main__":
    run(main)
