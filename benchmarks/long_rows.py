"""How long a row may be before a step no longer fits, with the prefix-tree kernel and with XLA's attention.

    FIT_JAX_DATA=DATA python -m benchmarks.long_rows    # about ten minutes on two cores

The step of `benchmarks.techniques` where six instructions share an input, with one row on each of eight v5e chips,
compiled ahead of time for two lengths each; a chip has 15.75 GiB. Needs the TPU compiler (`pip install '.[tpu]'`).
Prints a Markdown table.
"""

import argparse
import os

import jax

from benchmarks.techniques import TOPOLOGY, Case, config_of
from fit_jax.parallel.topology import Topology
from fit_jax.planning.compiled import compile_train
from fit_jax.planning.workload import workload
from fit_jax.units import GIB

# Of each kind one that fits and one that does not.
LENGTHS = {"auto": (22528, 24576), "xla": (6144, 8192)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_rows", description=str(__doc__).split("\n\n")[0])
    parser.parse_args()
    if "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds bbq and tokenizers")
    topology = Topology.parse(TOPOLOGY)
    rows = ("--train.batch_size", str(topology.chips), "--focus.branches", "6")
    print("| attention | tokens a row | GiB a chip |\n|---|---|---|", flush=True)
    for attention, lengths in LENGTHS.items():
        for length in lengths:
            options = (*rows, "--train.sequence_length", str(length), "--model.attention", attention)
            program = compile_train(workload(config_of(Case("a long row", options))), topology)
            jax.clear_caches()
            print(f"| {attention} | {length} | {program.failure or f'{program.total / GIB:.2f}'} |", flush=True)


if __name__ == "__main__":
    main()
