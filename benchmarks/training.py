"""Training examples a second, peak memory and loss beside TRL's SFTTrainer with PEFT, and a plain transformers loop.

    FIT_JAX_DATA=DATA python -m benchmarks.training [--tune lora|full] [--rounds 3] [--peer_python PYTHON]

A Llama of 6 layers, width 288 and 32,000 tokens with random weights, and SS prompts with their answers, one focus
instruction each: the same weights, token ids and targets on every side, fp32. A step takes TRL's default of eight
examples there, and two packed rows of 256 tokens, about nine examples, here. Each side is a fresh process, the sides in
turn, `--rounds` times; medians. Rates leave out what happens before the sixth step. Memory is the peak of the process's
own pages during the steps above what it held after its imports: weights, adapters, optimizer and all that a step needs.
Prints a table and the share of the CPU's matrix-product peak that the step here reaches, and writes
`runs/benchmarks/training_lora.json` or `training_full.json`.

Sides: `here`, `trl default`, `trl best` (completion-only, no gradient checkpointing, rows of similar length together),
`transformers` (a loop of ten lines, padded batches). What several focus instructions to one input gain is measured by
`benchmarks.shared_input`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.processes import in_turn, medians_of, own_bytes, watched
from benchmarks.timed import matrix_peak, own_steps, trl_steps

OUTPUT = Path("runs/benchmarks")
SIDES = ("here", "trl default", "trl best", "transformers")
SHAPE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 288,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
EXAMPLES, SKIPPED, STEPS = 1024, 5, 20
RANK, ALPHA, RATE = 16, 32, 1e-4
ROWS, TOKENS = 2, 256
PEER_BATCH = 8  # examples of a step, TRL's default


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--tune", choices=("lora", "full"), default="lora")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter that has trl, peft and torch")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.side:
        print(json.dumps(measured(asked.side, asked.folder, asked.tune == "lora")))
        return
    if "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds sst5 and tokenizers")
    with tempfile.TemporaryDirectory() as scratch:
        write_model_and_examples(Path(scratch))

        def command(side: str) -> list[str]:
            python = sys.executable if side == "here" else asked.peer_python
            options = ["--tune", asked.tune, "--side", side, "--folder", scratch]
            return [python, "-m", "benchmarks.training", *options]

        found = in_turn(SIDES, asked.rounds, command)
    medians = medians_of(found)
    print(f"{'side':16}{'examples/s':>12}{'here is':>9}{'peak MiB':>10}{'here takes':>12}{'first loss':>12}")
    ours = medians["here"]
    for side, row in medians.items():
        faster, smaller = ours["rate"] / row["rate"], ours["mib"] / row["mib"]
        print(f"{side:16}{row['rate']:12.1f}{faster:8.2f}x{row['mib']:10.0f}{smaller:11.2f}x{row['loss']:12.6f}")
    print(f"matrix products of a step: {ours['peak']:.2f} of this CPU's peak, by its own product of two fp32 matrices")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"training_{asked.tune}.json").write_text(json.dumps({"medians": medians, "rounds": found}, indent=2))


def config(lora: bool = True):
    """The run, as `python -m fit_jax.train` would be asked for it."""
    from fit_jax.config import load_config

    options = {
        "task.name": "ss",
        "focus.branches": 1,
        "tokenizer.path": str(Path(os.environ["FIT_JAX_DATA"]) / "tokenizers" / "llama2_32k"),
        "lora.rank": RANK if lora else 0,
        "lora.alpha": ALPHA,
        "lora.dropout": 0.0,
        "optimizer.learning_rate": RATE,
        "train.batch_size": ROWS,
        "train.sequence_length": TOKENS,
    }
    return load_config([text for name, value in options.items() for text in (f"--{name}", str(value))])


def train_loader():
    from fit_jax.data.loader import TrainLoader
    from fit_jax.data.tasks import build_task
    from fit_jax.focus.prompts import PromptEncoder
    from fit_jax.focus.tokenizers import load_tokenizer
    from fit_jax.methods import training_method

    run = config()
    task = build_task(run.task, run.seed)
    encoder = PromptEncoder(load_tokenizer(str(run.tokenizer.path)), task.text)
    return TrainLoader(training_method(task, run).sampler, encoder, run)


def write_model_and_examples(folder: Path) -> None:
    """The model as a Hugging Face folder, and the loader's rows taken apart into prompts with their answers."""
    from flax import nnx

    from fit_jax.models.decoder import Decoder
    from fit_jax.models.export import save_merged
    from fit_jax.models.families import config_from_hf

    (folder / "config.json").write_text(json.dumps(SHAPE))
    decoder = Decoder(config_from_hf(SHAPE, "config.json"), rngs=nnx.Rngs(0))
    save_merged(folder, decoder, np.dtype(np.float32))
    examples, step, loader = [], 0, train_loader()
    while len(examples) < EXAMPLES:
        examples += taken_apart(loader.batch(step))
        step += 1
    (folder / "examples.json").write_text(json.dumps(examples[:EXAMPLES]))


def taken_apart(batch) -> list[dict[str, list[int]]]:
    """Token ids and targets of the examples in packed rows that do not branch."""
    examples = []
    for row in range(len(batch.tokens)):
        used = batch.visible_until[row] > 0
        for end in np.unique(batch.visible_until[row][used]):
            place = np.flatnonzero(used & (batch.visible_until[row] == end))
            here = (batch.target_weight[row] > 0) & np.isin(batch.target_index[row], place)
            answer = batch.target_ids[row][here]
            ids = [*batch.tokens[row][place], answer[-1]]
            examples.append({"input_ids": [int(i) for i in ids], "answer": len(answer)})
    return examples


def measured(side: str, folder: Path, lora: bool) -> dict[str, float]:
    if side == "here":
        return here(folder, lora)
    examples = json.loads((folder / "examples.json").read_text())
    # So that no side's imports count as memory of its steps.
    import trl as _  # noqa: F401  # pyright: ignore[reportMissingImports]

    before = own_bytes()
    model = their_model(folder, lora)
    loss = their_loss(model, examples[:PEER_BATCH])
    with watched() as peak:
        rate = loop(model, examples) if side == "transformers" else trl(model, examples, best=side == "trl best")
    return {"rate": rate, "mib": (peak.bytes - before) / 2**20, "loss": loss}


def here(folder: Path, lora: bool) -> dict[str, float]:
    import dataclasses

    import jax

    from fit_jax.models.flops import train_flops
    from fit_jax.models.model_folder import resolve_pretrained
    from fit_jax.parallel.mesh import make_mesh
    from fit_jax.parallel.processes import to_global
    from fit_jax.runs.pretrained import pretrained_state
    from fit_jax.training.optimizer import make_optimizer
    from fit_jax.training.step import compile_train_step

    run, loader = config(lora), train_loader()
    batches = list(loader.iterate(0, SKIPPED + STEPS))
    jax.devices()
    before = own_bytes()
    model = resolve_pretrained(dataclasses.replace(run.model, remat="dots"), str(folder))
    mesh, optimizer = make_mesh(run.mesh), make_optimizer(run.optimizer, SKIPPED + STEPS)
    placed = pretrained_state(model, run.lora, optimizer, mesh, run.seed)
    batch = to_global(batches[0], mesh)
    step = compile_train_step(placed.graphdef, optimizer, placed.state, batch, accumulate=1)
    loss = first_loss(placed, batches[0])
    with watched() as peak:
        timed = own_steps(step, placed.state, batches, mesh, SKIPPED)
    flops = train_flops(model, run.lora, ROWS, TOKENS, batches[0].target_index.shape[1]).total
    return {
        "rate": timed.examples / timed.seconds,
        "mib": (peak.bytes - before) / 2**20,
        "loss": loss,
        "peak": STEPS * flops / timed.seconds / matrix_peak(),
    }


def first_loss(placed, batch) -> float:
    """Mean loss of a target token over the first examples, from the rows as training sees them."""
    import jax.numpy as jnp
    from flax import nnx

    from fit_jax.models.head import target_log_probs

    decoder = nnx.merge(placed.graphdef, *placed.state.params)
    hidden = decoder(batch.tokens, batch.positions, batch.visible_until, batch.target_index)
    log_probs = np.asarray(target_log_probs(decoder, hidden, jnp.asarray(batch.target_ids))[0])
    weights, left, total, count = batch.target_weight, PEER_BATCH, 0.0, 0
    for row in range(len(weights)):
        for slot in np.unique(batch.target_slot[row][weights[row] > 0]):
            if left:
                chosen = (batch.target_slot[row] == slot) & (weights[row] > 0)
                total, count, left = total - log_probs[row][chosen].sum(), count + chosen.sum(), left - 1
    return float(total / count)


def their_model(folder: Path, lora: bool):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not lora:
        return model
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear")
    return get_peft_model(model, adapters)


def padded(examples: list[dict]):
    """Token ids, attention mask and labels of some examples, the answers alone labelled."""
    import torch

    length = max(len(example["input_ids"]) for example in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        tokens, answer = torch.tensor(example["input_ids"]), example["answer"]
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        labels[row, len(tokens) - answer : len(tokens)] = tokens[-answer:]
    return ids, mask, labels


def their_loss(model, examples: list[dict]) -> float:
    import torch

    ids, mask, labels = padded(examples)
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=mask, labels=labels).loss)


def loop(model, examples: list[dict]) -> float:
    import torch

    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=RATE)
    start = 0.0
    for number in range(SKIPPED + STEPS):
        if number == SKIPPED:
            start = time.perf_counter()
        first = number * PEER_BATCH % (len(examples) - PEER_BATCH)
        ids, mask, labels = padded(examples[first : first + PEER_BATCH])
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return STEPS * PEER_BATCH / (time.perf_counter() - start)


def trl(model, examples: list[dict], best: bool) -> float:
    options = {
        "completion_only_loss": True,
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
    }
    timed = trl_steps(
        model,
        examples,
        SKIPPED,
        STEPS,
        learning_rate=RATE,
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=PEER_BATCH,
        **(options if best else {}),
    )
    return timed.examples / timed.seconds


if __name__ == "__main__":
    main(sys.argv[1:])
