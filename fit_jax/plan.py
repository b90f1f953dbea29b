"""`python -m fit_jax.plan`: whether a run fits a machine that is not there, how fast it is and what it costs.

    python -m fit_jax.plan --config configs/ss_gpu.yaml --topology l4:1
    python -m fit_jax.plan --config C --topology v5e:16x16 --slices 2 --price 1.2 --json
    python -m fit_jax.plan --config C --topology v6e:4x4 --search --write fast.yaml

Compiles the train and evaluation steps for the named TPU (v4, v5e, v5p, v6e, tpu7x) or GPU (h100, a100, l4) on this
machine, which needs neither. `--price` is dollars a chip and hour. `--search` looks for the fastest mesh, microbatches,
remat and attention; `--write` keeps the config it finds. Other options are the config's: `--section.field value`;
`mesh.processes` and `mesh.timeout` are about the run alone, for nothing is started here.
"""

import json
import math
from collections.abc import Callable
from typing import TypeVar

from fit_jax.config import load_config
from fit_jax.config_files import dump_config
from fit_jax.doors import new_file, take_flag, take_option
from fit_jax.errors import InputError, run_command

Number = TypeVar("Number", int, float)


def main(arguments: list[str]) -> int:
    """Plans one run; the status is 0 where it fits and 1 where it does not."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    searches, rest = take_flag(arguments, "search")
    as_text, rest = take_flag(rest, "json")
    named, rest = take_option(rest, "topology")
    write, rest = take_option(rest, "write")
    price, rest = _number(rest, "price", float)
    slices, rest = _number(rest, "slices", int)
    if not named:
        raise InputError("--topology is missing: name a machine, as in --topology v5e:4x4")
    out = new_file(write, "--write")
    if price is not None and not 0 <= price < math.inf:
        raise InputError(f"--price {price}: must be an amount from 0 up")
    if slices is not None and slices < 1:
        raise InputError(f"--slices {slices}: must be 1 or more")
    config = load_config(rest)
    from fit_jax.files import write_text
    from fit_jax.parallel.topology import Topology
    from fit_jax.planning.plan import make_plan
    from fit_jax.planning.plan_report import as_json, print_plan
    from fit_jax.planning.search import search

    topology = Topology.parse(named, slices or 1)
    if searches:
        config, plan = search(config, topology)
    else:
        plan = make_plan(config, topology)
    if out is not None:
        write_text(out, dump_config(config))
    if as_text:
        print(json.dumps(as_json(plan, price), indent=1))
    else:
        print_plan(plan, price)
    return 0 if plan.fits else 1


def _number(arguments: list[str], name: str, kind: Callable[[str], Number]) -> tuple[Number | None, list[str]]:
    text, rest = take_option(arguments, name)
    try:
        return (None if text is None else kind(text)), rest
    except ValueError as error:
        raise InputError(f"--{name} {text!r} is no number") from error


if __name__ == "__main__":
    run_command(main)
