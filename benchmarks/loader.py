"""Examples per second of each stage of the training stream, beside what the model of the same config trains on.

    python -m benchmarks.loader [--config configs/NAME.yaml] [--section.field value ...]

Prints a table and writes `runs/benchmarks/loader.json`. Medians over windows or steps; without a config, the demo.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from fit_jax.config import Config, load_config
from fit_jax.data.layout import lay_out
from fit_jax.data.loader import TrainLoader
from fit_jax.data.packing import first_fit, stack
from fit_jax.data.sampler import Sampler
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.methods import training_method
from fit_jax.methods.method import TrainingMethod
from fit_jax.runs.run import set_up

WINDOW = 1024
WINDOWS = 8
STEPS = 40
OUTPUT = Path("runs/benchmarks/loader.json")


def main(arguments: list[str]) -> None:
    config = load_config(arguments)
    run = set_up(config)
    encoder = run.encoder
    method = training_method(run.task, config)
    loader = TrainLoader(method.sampler, encoder, config)
    rates = stage_rates(method.sampler, encoder, loader)
    rates["whole, Grain thread"], fill = stream_rate(loader)
    rates["model, train step"] = model_rate(config, method, loader, len(encoder.tokenizer))
    ratio = rates["whole, Grain thread"] / rates["model, train step"]
    print(f"{'stage':24}{'examples/s':>12}")
    for stage, rate in rates.items():
        print(f"{stage:24}{rate:12,.0f}")
    print(f"\nThe loader feeds {ratio:.1f} times what the model trains on; {fill:.1%} of the rows' tokens are filled.")
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"examples_per_second": rates, "loader_over_model": ratio, "fill": fill}, indent=2))


def stage_rates(sampler: Sampler, encoder: PromptEncoder, loader: TrainLoader) -> dict[str, float]:
    """Examples a second of each stage by itself, on windows of training examples."""
    examples, T, C = sampler.examples, loader.tokens_per_row, loader.targets_per_row
    k = sampler.branches
    seconds: dict[str, list[float]] = {}

    def timed(stage: str, function: Callable, *arguments):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.setdefault(stage, []).append(time.perf_counter() - start)
        return result

    def lay_out_all(prompts: list, drawn: list) -> list:
        return [
            lay_out(prompts[n * k : (n + 1) * k], [branch.answers for branch in branches])
            for n, branches in enumerate(drawn)
        ]

    for window in range(WINDOWS):
        indices = np.arange(window * WINDOW, (window + 1) * WINDOW) % len(examples)
        drawn = timed("draw focus", sampler.branches_of, window, indices)
        shown = [branch.instruction for branches in drawn for branch in branches]
        prompts = timed("encode", encoder.encode, [examples[int(i)] for i in indices for _ in range(k)], shown)
        items = timed("lay out", lay_out_all, prompts, drawn)
        rows = timed("pack", first_fit, items, T, C)
        timed("stack", stack, [[items[i] for i in row] for row in rows], T, C)
    return {stage: WINDOW * k / median(times) for stage, times in seconds.items()}


def stream_rate(loader: TrainLoader) -> tuple[float, float]:
    """Examples a second of the loader as training uses it, and the share of tokens that are no padding."""
    list(loader.iterate(0, 1))  # imports Grain
    steps = max(STEPS, round(4 * WINDOW / len(loader.batch(0).rows.tokens)))
    start = time.perf_counter()
    counts = [(batch.examples, (batch.rows.visible_until > 0).mean()) for batch in loader.iterate(0, steps)]
    seconds = time.perf_counter() - start
    return float(sum(examples for examples, _ in counts)) / seconds, float(np.mean([fill for _, fill in counts]))


def model_rate(config: Config, method: TrainingMethod, loader: TrainLoader, vocab_size: int) -> float:
    """Examples a second of the compiled train step on batches that wait on the device."""

    import jax

    from fit_jax.models.config import with_vocabulary
    from fit_jax.parallel.mesh import make_mesh
    from fit_jax.parallel.processes import to_global
    from fit_jax.training.optimizer import make_optimizer
    from fit_jax.training.state import init_state, with_objective
    from fit_jax.training.step import compile_train_step

    model = with_vocabulary(config.model, vocab_size)
    mesh = make_mesh(config.mesh)
    optimizer = make_optimizer(config.optimizer, STEPS)
    placed = with_objective(
        init_state(model, config.lora, optimizer, mesh, config.seed), method.objective.start(), mesh
    )
    state = placed.state
    batches = [to_global(loader.batch(step), mesh) for step in range(STEPS)]
    step = compile_train_step(
        placed.graphdef,
        optimizer,
        state,
        batches[0],
        objective=method.objective,
        accumulate=config.train.accumulate,
    )
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return float(np.mean([batch.examples for batch in batches])) / median(seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
