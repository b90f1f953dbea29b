"""What a training says of itself before its first step: data, model, mesh, rows, and what to know of them."""

from fit_jax.models.model_folder import open_pretrained, unlike_family
from fit_jax.parallel.sharding import element_count
from fit_jax.runs.run import Run
from fit_jax.training.state import PlacedState
from fit_jax.units import count


def opening_lines(run: Run, placed: PlacedState, step: int, steps: int) -> list[str]:
    """What a run says of itself before the first step, a line each.

    Args:
        run: The run.
        placed: The state that it starts from.
        step: The step that it goes on after; 0 at the start.
        steps: The last step.
    """
    train, shape = run.config.train, {axis: size for axis, size in run.mesh.shape.items() if size > 1}
    trained, frozen = element_count(placed.state.trainable), element_count(placed.state.frozen)
    lines = [
        f"task {run.task.text.name}: {len(run.task.splits['train'].examples):,} training examples",
        f"model: {count(trained + frozen)} parameters, {count(trained)} trained; "
        f"{run.mesh.size} {run.mesh.devices.flat[0].device_kind} device(s)"
        + "".join(f", {axis} {size}" for axis, size in shape.items()),
        f"{steps} steps of {train.batch_size} rows x {'' if train.packing else 'up to '}{train.sequence_length} tokens",
    ]
    if rows := run.config.rehearsal.rows_per_step:
        share = rows / (rows + train.batch_size)
        lines.append(f"rehearsal: {rows} rows more in each step, {share:.0%} of all")
    found = open_pretrained(run.model.pretrained) if run.model.pretrained else None
    if found and found.left_out:
        lines.append(f"{run.model.pretrained}: its text model alone; left out: {', '.join(found.left_out)}")
    if found and found.quantization:
        held = run.model.param_dtype if run.model.quantize == "none" else f"{run.model.quantize}, quantised again"
        lines.append(f"{run.model.pretrained}: comes quantised ({found.quantization.method}), is held in {held}")
    if run.model.pretrained and run.config.tokenizer.template == "auto" and not run.encoder.tokenizer.chat_template:
        lines.append(f"{run.model.pretrained}: its tokenizer has no chat template; prompts are plain text")
    if not run.model.pretrained and (why := unlike_family(run.model)):
        lines.append(f"{why}: this model cannot be exported; change that, or model.family (mixtral: experts)")
    if step:
        lines.append(f"resuming after step {step}")
    return [*run.task.notes, *placed.replicated, *lines]
