"""What sharing an input between its focus instructions gains in training, at the same losses and gradients.

    FIT_JAX_DATA=DATA python -m benchmarks.shared_input [--tune lora|full] [--rounds 3]

BBQ's training questions, each under all six focus types, through a Llama of 6 layers, width 288 and 32,000 tokens with
random weights, fp32. `shared`: one row item holds a question once and its six instructions with their answers after
it. `alone`: the same prompts and answers, each an item of its own, packed as well. Each side is a fresh process, the
sides in turn, `--rounds` times; medians. Rates are of full batches after the first two. Demanded: losses and gradients
of the same questions equal to 1e-5 of their size; the status is 1 where they are not. Prints a table and writes
`runs/benchmarks/shared_input_lora.json` or `..._full.json`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import in_turn, medians_of, own_bytes, watched

OUTPUT = Path("runs/benchmarks")
SIDES = ("shared", "alone")
INPUTS, COMPARED, SKIPPED = 160, 14, 2
ROWS, TOKENS = 8, 416
TOLERANCE = 1e-5


def main(arguments: list[str]) -> int:
    about = str(__doc__).split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_input", description=about)
    parser.add_argument("--tune", choices=("lora", "full"), default="lora")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds bbq and tokenizers")
    if asked.side:
        print(json.dumps(measured(asked.side == "shared", asked.folder, asked.tune == "lora")))
        return 0
    command = [sys.executable, "-m", "benchmarks.shared_input", "--tune", asked.tune]
    with tempfile.TemporaryDirectory() as scratch:
        write_model(Path(scratch))
        found = in_turn(SIDES, asked.rounds, lambda side: [*command, "--side", side, "--folder", scratch])
        gradients = [dict(np.load(Path(scratch) / f"{side == 'shared'}.npz")) for side in SIDES]
    medians = medians_of(found)
    print(f"{'':8}{'examples/s':>12}{'tokens an example':>19}{'peak MiB':>10}{'loss':>12}")
    for side, row in medians.items():
        print(f"{side:8}{row['rate']:12.1f}{row['tokens']:19.1f}{row['mib']:10.0f}{row['loss']:12.6f}")
    shared, alone = medians.values()
    result = {
        "faster": shared["rate"] / alone["rate"],
        "loss off": abs(shared["loss"] / alone["loss"] - 1),
        "gradient off": apart(*gradients),
    }
    for name, value in result.items():
        print(f"{name:14}{value:.3g}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"shared_input_{asked.tune}.json").write_text(
        json.dumps({**result, "medians": medians, "rounds": found}, indent=2)
    )
    return int(max(result["loss off"], result["gradient off"]) > TOLERANCE)


def apart(ours: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> float:
    """Largest difference of an entry, over the largest entry; of all gradients."""
    return max(float(abs(ours[name] - g).max() / abs(g).max()) for name, g in others.items() if abs(g).max())


def write_model(folder: Path) -> None:
    from flax import nnx

    from benchmarks.training import SHAPE
    from fit_jax.models.decoder import Decoder
    from fit_jax.models.export import save_merged
    from fit_jax.models.families import config_from_hf

    (folder / "config.json").write_text(json.dumps(SHAPE))
    decoder = Decoder(config_from_hf(SHAPE, "config.json"), rngs=nnx.Rngs(0))
    save_merged(folder, decoder, np.dtype(np.float32))


def config(folder: Path, lora: bool):
    """The run, as `python -m fit_jax.train` would be asked for it."""
    from benchmarks.training import ALPHA, RANK, RATE
    from fit_jax.config import load_config

    options = {
        "task.name": "bbq",
        "tokenizer.path": str(Path(os.environ["FIT_JAX_DATA"]) / "tokenizers" / "llama2_32k"),
        "model.pretrained": str(folder),
        "model.remat": "dots",
        "lora.rank": RANK if lora else 0,
        "lora.alpha": ALPHA,
        "lora.dropout": 0.0,
        "optimizer.learning_rate": RATE,
    }
    return load_config([text for name, value in options.items() for text in (f"--{name}", str(value))])


def questions(run) -> list[tuple]:
    """Prompts of training questions under the six focus types, with the index of the answer to each."""
    from fit_jax.data.tasks import build_task
    from fit_jax.evaluation.queries import ask, encode
    from fit_jax.focus.prompts import PromptEncoder
    from fit_jax.focus.tokenizers import load_tokenizer

    task = build_task(run.task, run.seed)
    encoder = PromptEncoder(load_tokenizer(run.tokenizer.path), task.text)
    examples = (e for e in task.splits["train"].examples if len(e.spurious) == 1)
    groups = [ask(task.text, "train", example, ("train",), run.seed) for example, _ in zip(examples, range(INPUTS))]
    return [(prompts, [q.label for q in group.queries]) for prompts, group in zip(encode(encoder, groups), groups)]


def batches(asked: list[tuple], shared: bool) -> list:
    """The questions in packed rows, `ROWS` a batch."""
    from fit_jax.data.layout import lay_out
    from fit_jax.data.packing import first_fit, stack, target_capacity

    if shared:
        items = [lay_out(prompts, [[label] for label in labels]) for prompts, labels in asked]
    else:
        items = [lay_out([p], [[label]]) for prompts, labels in asked for p, label in zip(prompts, labels)]
    C = target_capacity(items, TOKENS)
    rows = [[items[i] for i in row] for row in first_fit(items, TOKENS, C)]
    rows += [[]] * (-len(rows) % ROWS)
    return [stack(rows[at : at + ROWS], TOKENS, C)[0] for at in range(0, len(rows), ROWS)]


def measured(shared: bool, folder: Path, lora: bool) -> dict[str, float]:
    import jax

    from fit_jax.models.model_folder import resolve_pretrained
    from fit_jax.parallel.mesh import make_mesh
    from fit_jax.parallel.processes import to_global
    from fit_jax.runs.pretrained import pretrained_state
    from fit_jax.training.optimizer import make_optimizer
    from fit_jax.training.step import compile_train_step

    run = config(folder, lora)
    asked = questions(run)
    rows = batches(asked, shared)
    before = own_bytes()
    mesh, optimizer = make_mesh(run.mesh), make_optimizer(run.optimizer, len(rows))
    placed = pretrained_state(resolve_pretrained(run.model, str(folder)), run.lora, optimizer, mesh, run.seed)
    loss = written_gradient(placed, batches(asked[:COMPARED], shared), folder / f"{shared}.npz")
    state = placed.state
    first = to_global(rows[0], mesh)
    step = compile_train_step(placed.graphdef, optimizer, state, first, accumulate=1)
    with watched() as peak:
        for batch in rows[:SKIPPED]:
            state, _ = step(state, to_global(batch, mesh))
        jax.block_until_ready(state)
        start = time.perf_counter()
        for batch in rows[SKIPPED:-1]:
            state, _ = step(state, to_global(batch, mesh))
        jax.block_until_ready(state)
        seconds = time.perf_counter() - start
    examples = [int(batch.examples) for batch in rows]
    tokens = sum(int((batch.visible_until > 0).sum()) for batch in rows)
    return {
        "rate": sum(examples[SKIPPED:-1]) / seconds,
        "tokens": tokens / sum(examples),
        "mib": (peak.bytes - before) / 2**20,
        "loss": loss,
    }


def written_gradient(placed, rows: list, path: Path) -> float:
    """The mean loss of a target over these batches; its gradient goes into a file."""
    import jax
    from flax import nnx

    from fit_jax.parallel.sharding import named_leaves
    from fit_jax.training.objective import target_scores

    @jax.jit
    def sums_and_gradient(trainable, batch):
        def loss(trainable):
            scores, _ = target_scores(nnx.merge(placed.graphdef, trainable, placed.state.frozen), batch)
            found = -(scores.log_prob * batch.target_weight).sum()
            return found, (found, batch.target_weight.sum())

        return jax.grad(loss, has_aux=True)(trainable)

    found = [sums_and_gradient(placed.state.trainable, batch) for batch in rows]
    gradient, (total, targets) = jax.tree.map(lambda *parts: sum(map(np.asarray, parts)), *found)
    arrays: dict[str, Any] = {name: np.asarray(leaf / targets) for name, leaf in named_leaves(gradient).items()}
    np.savez(path, **arrays)
    return float(total / targets)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
