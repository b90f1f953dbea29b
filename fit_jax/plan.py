"""`python -m fit_jax.plan`: whether a run fits a machine that is not there, how fast it is and what it costs.

    python -m fit_jax.plan --config configs/paper/ss_llama31_8b.yaml --topology v5e:2x4
    python -m fit_jax.plan --config C --topology v5e:16x16 --slices 2 --price 1.2 --json
    python -m fit_jax.plan --config C --topology v6e:4x4 --search --write fast.yaml

Compiles the train and evaluation steps for the named TPU (v4, v5e, v5p, v6e, tpu7x) or GPU (h100, a100, l4) on this
machine, which needs neither. `--search` looks for the fastest mesh, microbatches, remat and attention; `--write` keeps
the config it finds. Other options are the config's: `--section.field value`.
"""

import json
import math
from pathlib import Path

from fit_jax.config import load_config
from fit_jax.config_files import dump_config
from fit_jax.errors import InputError, run_door

FLAGS = ("json", "search")
VALUES = ("topology", "slices", "price", "write")


def main(arguments: list[str]) -> int:
    """Plans one run; the status is 0 where it fits and 1 where it does not."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    own, rest = _own_options(arguments)
    if "topology" not in own:
        raise InputError("--topology is missing: name a machine, as in --topology v5e:4x4")
    out = Path(own["write"]) if "write" in own else None
    if out is not None and out.exists():
        raise InputError(f"--write {out}: is there already; nothing is overwritten, choose another name")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"--write {out}: {out.parent} is no folder; choose one that exists")
    price = _number(own, "price", float)
    if price is not None and not 0 <= price < math.inf:
        raise InputError(f"--price {own['price']}: must be an amount from 0 up")
    slices = _number(own, "slices", int)
    if slices is not None and slices < 1:
        raise InputError(f"--slices {slices}: must be 1 or more")
    config = load_config(rest)
    from fit_jax.files import write_text
    from fit_jax.parallel.topology import Topology
    from fit_jax.planning.plan import make_plan
    from fit_jax.planning.report import as_json, print_plan
    from fit_jax.planning.search import search

    topology = Topology.parse(own["topology"], slices or 1)
    if "search" in own:
        config, plan = search(config, topology)
    else:
        plan = make_plan(config, topology)
    if out is not None:
        write_text(out, dump_config(config))
    if "json" in own:
        print(json.dumps(as_json(plan, price), indent=1))
    else:
        print_plan(plan, price)
    return 0 if plan.fits else 1


def _own_options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options of this door, and the arguments left for the config."""
    own: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.removeprefix("--").partition("=")
        if name in FLAGS:
            own[name] = "yes"
        elif name in VALUES:
            own[name] = value if equals else next(waiting, "")
            if not own[name]:
                raise InputError(f"--{name} needs a value")
        else:
            rest.append(argument)
    return own, rest


def _number(own: dict[str, str], name: str, kind: type[int] | type[float]) -> int | float | None:
    try:
        return kind(own[name]) if name in own else None
    except ValueError as error:
        raise InputError(f"--{name} {own[name]!r} is no number") from error


if __name__ == "__main__":
    run_door(main)
