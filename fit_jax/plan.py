"""Tells whether a run fits a machine that is not there, how fast it is and what it costs.

    python -m fit_jax.plan --config configs/ss_small.yaml --config configs/gpu.yaml --topology l4:1
    python -m fit_jax.plan --config C --topology v5e:16x16 --slices 2 --price 1.2 --json
    python -m fit_jax.plan --config C --topology v6e:4x4 --search --write fast.yaml

Compiles the train and evaluation steps for the named TPU (v4, v5e, v5p, v6e, tpu7x) or GPU (h100, a100, l4) on this
machine, which needs neither. The status is 0 where the run fits and 1 where it does not. `mesh.processes` and
`mesh.timeout` are about the run alone, for nothing is started here.
"""

import json
import math
from argparse import Namespace

from fit_jax.cli import execute, run
from fit_jax.config import Config, load_config
from fit_jax.config_files import dump_config
from fit_jax.errors import InputError
from fit_jax.options import Parser, add_fields, new_file


def add_options(parser: Parser) -> None:
    """The machine, what to print, and every field of the config."""
    parser.add_argument("--topology", metavar="NAME:CHIPS", help="the machine, as in v5e:4x4", required=True)
    parser.add_argument("--slices", metavar="COUNT", help="how many of it are joined (default: 1)", type=int, default=1)
    parser.add_argument("--price", metavar="DOLLARS", help="of a chip for an hour", type=float)
    parser.add_argument(
        "--search", help="look for the fastest mesh, microbatches, remat and attention", action="store_true"
    )
    parser.add_argument("--write", metavar="FILE", help="keep the config that was planned", type=new_file("--write"))
    parser.add_argument("--json", help="print JSON in place of tables", action="store_true")
    add_fields(parser, Config)
    parser.set_defaults(run=_plan)


def main(arguments: list[str]) -> int | None:
    """Runs the command."""
    return execute("python -m fit_jax.plan", __doc__, add_options, arguments)


def _plan(given: Namespace) -> int:
    if given.price is not None and not 0 <= given.price < math.inf:
        raise InputError(f"--price {given.price}: must be an amount from 0 up")
    if given.slices < 1:
        raise InputError(f"--slices {given.slices}: must be 1 or more")
    config = load_config(given.config)
    from fit_jax.files import write_new
    from fit_jax.parallel.topology import Topology
    from fit_jax.planning.plan import make_plan
    from fit_jax.planning.plan_report import as_json, print_plan
    from fit_jax.planning.search import search

    topology = Topology.parse(given.topology, given.slices)
    if given.search:
        config, plan = search(config, topology)
    else:
        plan = make_plan(config, topology)
    if given.write is not None:
        write_new(given.write, dump_config(config))
    if given.json:
        print(json.dumps(as_json(plan, given.price), indent=1))
    else:
        print_plan(plan, given.price)
    return 0 if plan.fits else 1


if __name__ == "__main__":
    run(main)
