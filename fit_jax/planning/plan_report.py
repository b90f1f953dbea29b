"""A plan as JSON and as a table for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from fit_jax.parallel.config import AXES
from fit_jax.planning.plan import Plan
from fit_jax.planning.roofline import ASSUMPTIONS
from fit_jax.terminal import PipedConsole
from fit_jax.units import duration, size


def as_json(plan: Plan, price: float | None = None) -> dict[str, Any]:
    """Everything a plan knows, in bytes, seconds and FLOPs; bytes are a device's.

    Args:
        plan: The plan.
        price: Dollars a chip and hour; None leaves the cost out.
    """
    load, time, (parameters, optimizer) = plan.load, plan.time, plan.held
    hours = None if load.steps is None else load.steps * time.total / 3600
    chips = plan.topology.chips
    return {
        "topology": str(plan.topology),
        "devices": chips * plan.topology.accelerator.devices_per_chip,
        "fits": plan.fits,
        "spare_bytes": plan.spare,
        "available_bytes": plan.topology.accelerator.memory,
        "failures": [p.failure for p in (plan.train, plan.evaluation) if p.failure],
        "advice": list(plan.advice),
        "mesh": {axis: getattr(load.mesh, axis) for axis in (*AXES, "slices")},
        "rows": load.rows,
        "rehearsal_rows": load.rehearsal_rows,
        "sequence_length": load.sequence_length,
        "targets_per_row": load.targets,
        "accumulate": load.accumulate,
        "remat": load.model.remat,
        "attention": load.model.attention,
        "parameter_bytes": parameters,
        "optimizer_bytes": optimizer,
        "planned_bytes": {**plan.planned._asdict(), "total": plan.planned.total},
        "compiled_bytes": {
            name: {"arguments": p.arguments, "temp": p.temp, "total": p.total}
            for name, p in (("train", plan.train), ("evaluation", plan.evaluation))
        },
        "compile_seconds": {"train": plan.train.seconds, "evaluation": plan.evaluation.seconds},
        "flops": {**time.flops._asdict(), "total": time.flops.total},
        "collective_bytes": plan.traffic,
        "step_seconds": {
            "compute": time.compute,
            "memory": time.memory,
            "overlapped": time.overlapped,
            "exposed": time.exposed,
            "total": time.total,
        },
        "bound": time.bound,
        "mfu": time.utilisation,
        "tokens_per_second": (load.rows + load.rehearsal_rows) * load.sequence_length / time.total,
        "steps": load.steps,
        "hours": hours,
        "dollars": None if price is None or hours is None else price * chips * hours,
        "dollars_per_thousand_steps": None if price is None else price * chips * time.total / 3.6,
        "notes": [*load.notes, *plan.replicated],
        "assumptions": list(ASSUMPTIONS),
    }


def print_plan(plan: Plan, price: float | None = None, console: Console | None = None) -> None:
    """Prints the verdict, then memory, time and cost."""
    console = console or PipedConsole()
    facts = as_json(plan, price)
    available = plan.topology.accelerator.memory
    mesh = " x ".join(f"{axis} {size}" for axis, size in facts["mesh"].items())
    console.print(f"[bold]{plan.topology}[/bold]: {facts['devices']} devices of {size(available)}, mesh {mesh}")
    console.print(
        f"{facts['rows']} rows of {facts['sequence_length']} tokens and {facts['targets_per_row']} targets in "
        f"{facts['accumulate']} microbatch(es), remat {facts['remat']}, attention {facts['attention']}"
    )
    if plan.fits:
        console.print(f"[green]fits[/green], with {size(plan.spare)} a device to spare")
    else:
        console.print(f"[red]does not fit[/red]: {_shortfall(plan)}")
        for line in facts["failures"]:
            console.print(f"  the compiler says: {line}")
        for line in plan.advice:
            console.print(f"  try: {line}")
    console.print(_memory_table(plan))
    console.print(_time_table(facts))
    if facts["hours"] is not None:
        cost = "" if facts["dollars"] is None else f", ${facts['dollars']:,.2f}"
        console.print(f"{facts['steps']} steps: {duration(facts['hours'] * 3600)}{cost}")
    elif price is not None:
        console.print(f"1000 steps: ${facts['dollars_per_thousand_steps']:,.2f}")
    for line in facts["notes"]:
        console.print(f"note: {line}")
    for line in facts["assumptions"]:
        console.print(f"assumed: {line}", style="dim")


def _shortfall(plan: Plan) -> str:
    if plan.spare < 0:
        return f"{size(-plan.spare)} a device too much"
    return "by the compiler, though the planned bytes would"


def _memory_table(plan: Plan) -> Table:
    table = Table("memory a device", "planned", "compiled", title=None)
    parameters, optimizer = plan.held
    planned, train, evaluation = plan.planned, plan.train, plan.evaluation

    def row(name: str, first: float, second: float | None) -> None:
        table.add_row(name, size(first), "-" if second is None else size(second))

    row("parameters", planned.parameters, parameters)
    row("optimizer", planned.optimizer, optimizer)
    row("activations kept", planned.activations, None)
    row("temp besides", planned.temp, None)
    row("activations + temp", planned.activations + planned.temp, None if train.failure else train.temp)
    row("train step", planned.total, None if train.failure else train.total)
    table.add_row("evaluation step", "-", "-" if evaluation.failure else size(evaluation.total))
    return table


def _time_table(facts: dict[str, Any]) -> Table:
    table = Table("train step", "")
    seconds = facts["step_seconds"]
    for name in ("compute", "memory", "overlapped", "exposed"):
        label = {"overlapped": "collectives, overlapped", "exposed": "collectives, exposed"}.get(name, name)
        table.add_row(label, duration(seconds[name]))
    table.add_row("step", f"{duration(seconds['total'])} ({facts['bound']} bound)")
    table.add_row("FLOPs of a step", f"{facts['flops']['total']:.3e}")
    table.add_row("MFU", f"{facts['mfu']:.1%}")
    table.add_row("tokens a second", f"{facts['tokens_per_second']:,.0f}")
    for kind, received in facts["collective_bytes"].items():
        table.add_row(f"{kind}, received a device", size(received))
    table.add_row("compile", " + ".join(f"{s:.0f} s {name}" for name, s in facts["compile_seconds"].items()))
    return table
