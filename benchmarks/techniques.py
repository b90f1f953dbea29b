"""What each technique saves in the step of a large LoRA run on a TPU slice: compiled bytes, and operations an example.

    FIT_JAX_DATA=DATA python -m benchmarks.techniques    # about ten minutes on two cores

Llama-3.1-8B with adapters of rank 16 on BBQ's prompts, 32,768 tokens a step on eight v5e chips, compiled ahead of time:
as it is, and with one technique left out or put in. Examples a step are those of the first batch that the loader
really builds. Operations are counted from shapes (`fit_jax.models.flops`, which a test holds against compiled
programs). Needs the TPU compiler (`pip install '.[tpu]'`). Prints a Markdown table and writes
`runs/benchmarks/techniques.json`.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax

from fit_jax.config import Config, load_config
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.topology import Topology
from fit_jax.planning.compiled import compile_train, place
from fit_jax.planning.roofline import compiled_step
from fit_jax.planning.workload import workload
from fit_jax.units import GIB

OUTPUT = Path("runs/benchmarks/techniques.json")
FILES = ("--config", "configs/paper/tasks/bbq.yaml", "--config", "configs/paper/models/llama31_8b.yaml")
TOPOLOGY = "v5e:2x4"
ROWS, TOKENS = 16, 2048
# Rows that hold any one of these examples, as many tokens a step.
PADDED = ("--train.sequence_length", "256", "--train.batch_size", str(ROWS * TOKENS // 256))


class Case(NamedTuple):
    """A way of doing the step: its name, options, and whether every token is a target."""

    name: str
    options: tuple[str, ...] = ()
    dense: bool = False


CASES = (
    Case("as it is: packed rows, logits at answers, adapters on a bf16 base, the prefix-tree kernel"),
    Case("last layer and logits at every token", dense=True),
    Case(
        "one padded example a row",
        ("--train.packing", "false", *PADDED),
    ),
    Case("attention without a fused kernel", ("--model.attention", "xla")),
    Case("six instructions share an input", ("--focus.branches", "6")),
    Case("the same without a fused kernel", ("--focus.branches", "6", "--model.attention", "xla")),
    Case("all weights trained", ("--lora.rank", "0")),
    Case("base in int8", ("--model.quantize", "int8")),
    Case("base in nf4", ("--model.quantize", "nf4")),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.techniques", description=str(__doc__).split("\n\n")[0])
    parser.parse_args()
    if "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds bbq and tokenizers")
    rows = []
    head = ("step", "GiB a chip", "examples", "TFLOP a step", "GFLOP an example", "planned step, s")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for case in CASES:
        rows.append(row := planned(case))
        numbers = f"{row['gib']:.2f} | {row['examples']} | {row['tflop']:.0f} | {row['gflop_example']:.0f}"
        fits = f"{row['step_seconds']:.2f}" if row["failure"] is None else row["failure"]
        print(f"| {case.name} | {numbers} | {fits} |", flush=True)
        jax.clear_caches()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1))


def planned(case: Case) -> dict[str, object]:
    topology = Topology.parse(TOPOLOGY)
    config = config_of(case)
    targets, examples = of_the_loader(config)
    load = replace(workload(config), targets=config.train.sequence_length if case.dense else targets)
    program = compile_train(load, topology)
    mesh = make_mesh(load.mesh, topology.devices())
    time = compiled_step(load, place(load, mesh).state, mesh, topology, program.collectives)
    return {
        "case": case.name,
        "gib": program.total / GIB,
        "targets": load.targets,
        "examples": examples,
        "tflop": time.flops.total / 1e12,
        "gflop_example": time.flops.total / examples / 1e9,
        "step_seconds": time.total,
        "failure": program.failure,
    }


def config_of(case: Case) -> Config:
    tokenizer = Path(os.environ["FIT_JAX_DATA"]) / "tokenizers" / "llama3"
    options = ("--tokenizer.path", str(tokenizer), "--train.packing", "true")
    shape = ("--train.batch_size", str(ROWS), "--train.sequence_length", str(TOKENS))
    return load_config([*FILES, *options, *shape, *case.options])


def of_the_loader(config: Config) -> tuple[int, int]:
    """Target positions of a row, and examples in the first batch."""
    from fit_jax.data.loader import TrainLoader
    from fit_jax.data.tasks import build_task
    from fit_jax.focus.prompts import PromptEncoder
    from fit_jax.focus.tokenizers import load_tokenizer
    from fit_jax.methods import training_method

    task = build_task(config.task, config.seed)
    encoder = PromptEncoder(
        load_tokenizer(str(config.tokenizer.path)), task.text, sequence_length=config.train.sequence_length
    )
    loader = TrainLoader(training_method(task, config).sampler, encoder, config)
    return loader.targets_per_row, int(loader.batch(0).examples)


if __name__ == "__main__":
    main()
