"""Plans of large runs on TPU slices that need not be there: what compiles, how long that takes, and bytes a chip.

    python -m benchmarks.plans            # compiles the train steps below; about ten minutes on two cores
    python -m benchmarks.plans held_out   # three others, to test the formula of planned bytes on
    python -m benchmarks.plans scaling    # weak scaling from 8 to 1024 chips, from shapes alone; a minute

Needs the TPU compiler (`pip install '.[tpu]'`). Prints Markdown tables and writes `plans.json`, or `scaling.json`
and `scaling.svg`, under `runs/benchmarks`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fit_jax.config import Config, load_config
from fit_jax.evaluation.figures import figure
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.topology import Topology
from fit_jax.planning.compiled import compile_train, laid_out, place
from fit_jax.planning.memory import plan_memory
from fit_jax.planning.roofline import compiled_step, plan_step
from fit_jax.planning.workload import workload
from fit_jax.units import GIB

OUTPUT = Path("runs/benchmarks")
PAPER = "configs/paper"


class Case(NamedTuple):
    """A run and the machine it is planned for."""

    title: str
    model: str
    topology: str
    rows: int
    slices: int = 1
    options: tuple[str, ...] = ()


FULL = ("--lora.rank", "0")
ROW = ("--train.sequence_length", "2048")
CASES = (
    Case("Llama-3.1-8B LoRA", "llama31_8b", "v5e:2x4", 16),
    Case("Llama-3.1-8B LoRA", "llama31_8b", "v5p:2x2x1", 16),
    Case("Llama-3.1-8B full", "llama31_8b", "v5e:8x8", 128, options=FULL),
    Case("Llama-3.1-8B full", "llama31_8b", "v6e:4x4", 32, options=FULL),
    Case("Vicuna-13B LoRA", "vicuna_13b", "v5e:4x4", 16),
    Case("70B-shaped full", "llama_70b", "v5p:8x8x8", 512),
    Case("70B-shaped full", "llama_70b", "v5e:16x16", 512, slices=2, options=("--mesh.data", "2")),
)
# Runs that the constants of `planning/memory.py` were not fitted to.
HELD_OUT = (
    Case("Llama-3.1-8B full", "llama31_8b", "v5p:4x4x4", 128, options=FULL),
    Case("Llama-3.1-8B full", "llama31_8b", "v5p:8x8x8", 512, options=FULL),
    Case("Llama-3.1-8B full", "llama31_8b", "v5e:16x16", 512, options=FULL),
)

# Rows a chip of the weak-scaling study, and how its chips are split: axis sizes, -1 taking the rest.
ROWS_PER_CHIP = 1
SPLITS = {
    "fsdp": {"data": 1, "fsdp": -1, "tensor": 1},
    "fsdp 8 x data": {"data": -1, "fsdp": 8, "tensor": 1},
    "fsdp x tensor 4": {"data": 1, "fsdp": -1, "tensor": 4},
    "data": {"data": -1, "fsdp": 1, "tensor": 1},
}
SLICES = {8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}


def main(arguments: list[str]) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    if arguments == ["scaling"]:
        scaling()
    else:
        table(HELD_OUT if arguments == ["held_out"] else CASES)


def table(cases: Sequence[Case]) -> None:
    head = ("run", "machine", "rows x tokens", "compile s", "arguments", "temp", "compiled", "planned", "off", "fits")
    rows = []
    print(f"| {' | '.join((*head, 'step s', 'MFU'))} |\n|{'---|' * (len(head) + 2)}", flush=True)
    for case in cases:
        rows.append(row := planned(case))
        sizes = [row[name] for name in ("arguments_gib", "temp_gib", "compiled_gib", "planned_gib")]
        off = f"{sizes[3] / sizes[2] - 1:+.1%}" if sizes[2] else "-"
        first = (
            f"{row['run']} | {row['machine']} | {row['rows']} x {row['sequence_length']} | {row['compile_seconds']:.0f}"
        )
        bytes_shown = " | ".join(f"{size:.2f}" for size in sizes)
        print(
            f"| {first} | {bytes_shown} | {off} | {row['fits']} | {row['step_seconds']:.2f} | {row['mfu']:.0%} |",
            flush=True,
        )
        jax.clear_caches()
    (OUTPUT / "plans.json").write_text(json.dumps(rows, indent=1))


def planned(case: Case) -> dict[str, Any]:
    """One row of the table; GiB a chip."""
    topology = Topology.parse(case.topology, case.slices)
    load = workload(config_of(case.model, case.rows, *case.options), case.slices)
    program = compile_train(load, topology)
    mesh = make_mesh(load.mesh, topology.devices())
    state = place(load, mesh).state
    time = compiled_step(load, state, mesh, topology, program.collectives)
    return {
        "run": case.title,
        "machine": str(topology),
        "rows": load.rows,
        "sequence_length": load.sequence_length,
        "compile_seconds": program.seconds,
        "arguments_gib": program.arguments / GIB,
        "temp_gib": program.temp / GIB,
        "compiled_gib": program.total / GIB,
        "planned_gib": plan_memory(load, state, mesh, topology).total / GIB,
        "fits": "yes" if program.failure is None else program.failure,
        "step_seconds": time.total,
        "mfu": time.utilisation,
    }


def scaling() -> None:
    """Efficiency of Llama-3.1-8B full fine-tuning on v5e, a row of 2048 tokens a chip, relative to pure arithmetic."""
    found: dict[str, dict[int, float]] = {name: {} for name in SPLITS}
    shapes = None
    for chips in (8, 16, 32, 64, 128, 256, 512, 1024):
        topology = Topology.parse(f"v5e:{SLICES[min(chips, 256)]}", max(chips // 256, 1))
        load = workload(config_of("llama31_8b", ROWS_PER_CHIP * chips, *FULL), topology.slices)
        for name, split in SPLITS.items():
            sizes = dict(split)
            if topology.slices > 1 and sizes["data"] == 1:
                sizes["data"] = topology.slices  # only gradients cross slices
            option = replace(load, mesh=replace(load.mesh, **sizes))
            mesh = make_mesh(option.mesh, topology.devices())
            shapes = shapes or place(option, mesh).state
            state = laid_out(shapes, mesh)
            if plan_memory(option, state, mesh, topology).total <= topology.accelerator.memory:
                time = plan_step(option, state, mesh, topology)
                found[name][chips] = time.compute / time.total
    print("| chips | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for chips in found["fsdp"]:
        cells = (f"{found[name][chips]:.0%}" if chips in found[name] else "does not fit" for name in found)
        print(f"| {chips} | {' | '.join(cells)} |")
    (OUTPUT / "scaling.json").write_text(json.dumps(found, indent=1))
    draw(found, OUTPUT / "scaling.svg")


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    with figure((6, 3.5), path, "svg") as drawn:
        drawn.set_layout_engine("tight")
        axes = drawn.add_subplot()
        for name, points in found.items():
            if not points:
                continue
            axes.plot(list(points), [100 * p for p in points.values()], marker="o", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(found["fsdp"]), [str(chips) for chips in found["fsdp"]])
        axes.set(xlabel="v5e chips (beyond 256: several slices)", ylabel="planned efficiency, %", ylim=(0, 105))
        axes.legend(title="mesh")
        axes.grid(alpha=0.3)


def config_of(model: str, rows: int, *options: str) -> Config:
    files = ["--config", f"{PAPER}/base.yaml", "--config", f"{PAPER}/models/{model}.yaml"]
    return load_config([*files, "--train.batch_size", str(rows), *ROW, *options])


if __name__ == "__main__":
    main(sys.argv[1:])
