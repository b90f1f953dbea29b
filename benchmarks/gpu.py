"""LoRA training of Llama-3.1-8B's shape on one GPU, beside TRL's SFTTrainer with PEFT.

    FIT_JAX_DATA=DATA python -m benchmarks.gpu [--rounds 3] [--peer_python PYTHON]
    FIT_JAX_DATA=DATA python -m benchmarks.gpu --shape tiny --rounds 1       the same on a CPU, to see that it runs

Random weights in bf16, adapters of rank 16 in fp32, and BBQ questions with their answers, one focus instruction each:
the same token ids and targets on every side. A step takes packed rows here and about as many examples there. Each side
is a fresh process, the sides in turn, `--rounds` times; medians. Rates leave out what happens before the timed steps.
Prints a table and writes `runs/benchmarks/gpu.json` (`gpu_tiny.json`).

Sides: `here` (packed rows, targets at the answers alone), `here, all positions` (the same rows with a target at every
token, so that the last layer and the vocabulary projection run everywhere), `here, branches` (six focus instructions
share each input), `trl default` (padded batches, loss on all tokens), `trl best` (loss on the answers; packed rows
where flash attention is installed, else batches of similar length). Gradient checkpointing is TRL's default on both.

Tokens are those that are no padding, targets or not; of `branches` a shared input counts once. MFU takes 4 N FLOPs a
token, N being all parameters but the input embeddings, which are only looked up. `here` leaves out most of the
vocabulary projection, 7 % of N, and every side does more: attention, adapters, what is recomputed. Memory is the peak
of what the framework's allocator gave out (`tiny`: as in `benchmarks.training`).
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.processes import in_fresh_process, in_turn, medians_of, own_bytes, watched
from benchmarks.timed import Timed, own_steps, trl_steps
from benchmarks.training import ALPHA, RANK, RATE, taken_apart

OUTPUT = Path("runs/benchmarks")
SIDES = ("here", "here, all positions", "here, branches", "trl default", "trl best")
BRANCHES = 6
PEAK = 989e12  # dense bf16 FLOP/s of an H100 SXM
PEER_BATCHES = 40  # batches' worth of examples for TRL, which sorts by length within a quarter of what it has


class Shape(NamedTuple):
    """A model, by config files and fields of the run, and its rows; `tokenizer` is a folder under `tokenizers`."""

    files: tuple[Path, ...]
    model: Mapping[str, Any]
    tokenizer: str
    rows: int
    tokens: int
    skipped: int
    steps: int
    gpu: bool


PAPER = Path(__file__).parents[1] / "configs" / "paper"
SHAPES = {
    # GB of 80, decimal: weights 16.1; adapters, their gradients and two moments 16 bytes x 41.9 M = 0.7. `dots` keeps
    # 2 bytes a token and layer of the residual stream 4,096, of q, k, v, o, gate and up 38,912, as much again of their
    # adapters' outputs, and 112 between the adapters' factors: x 31 layers x 4,096 tokens 20.8 a row. The layer in
    # flight takes 1.1 a row. So two rows are 61 (the compiler says 60.1), three 82. `full` takes 16 rows in 52, but
    # does half again the arithmetic.
    "llama31_8b": Shape(
        (PAPER / "base.yaml", PAPER / "models" / "llama31_8b.yaml"),
        {"model.pretrained": "null", "model.remat": "dots", "train.packing": "true"},
        *("llama3", 2, 4096, 3, 12),
        gpu=True,
    ),
    "tiny": Shape((), {"model.vocab_size": 6400}, "minimind_6400", 2, 512, 1, 2, gpu=False),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama31_8b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter that has trl, peft and torch")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    shape = SHAPES[asked.shape]
    if asked.side:
        print(json.dumps(measured(asked.side, shape, asked.folder)))
        return 0
    if "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds bbq and tokenizers")
    ours, theirs = devices(asked.peer_python)
    if shape.gpu and not (ours["platform"] == "gpu" and theirs["cuda"]):
        here = "JAX" if ours["platform"] != "gpu" else f"PyTorch ({asked.peer_python})"
        print(f"no GPU that {here} can use; with --shape tiny the benchmark runs on a CPU", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        write_inputs(Path(scratch), shape)

        def command(side: str) -> list[str]:
            python = sys.executable if side.startswith("here") else asked.peer_python
            return [python, "-m", "benchmarks.gpu", "--shape", asked.shape, "--side", side, "--folder", scratch]

        environment = {"JAX_COMPILATION_CACHE_DIR": f"{scratch}/compiled"}
        if shape.gpu:
            # JAX takes three quarters of the card unless it is told to take more.
            environment |= {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
        found = in_turn(SIDES, asked.rounds, command, environment)
    medians = medians_of(found)
    N = multiplied_parameters(shape)
    print(f"{'side':20}{'examples/s':>12}{'here is':>9}{'tokens/s':>10}{'MFU':>7}{'peak MiB':>10}")
    for side, row in medians.items():
        row["mfu"] = 4 * N * row["tokens"] / PEAK
        faster = medians["here"]["examples"] / row["examples"]
        print(f"{side:20}{row['examples']:12.1f}{faster:8.2f}x{row['tokens']:10.0f}{row['mfu']:7.1%}{row['mib']:10.0f}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = {"shape": asked.shape, "N": N, "here": ours, "trl": theirs, "medians": medians, "rounds": found}
    (OUTPUT / ("gpu.json" if shape.gpu else "gpu_tiny.json")).write_text(json.dumps(report, indent=2))
    return 0


def devices(peer_python: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The device that JAX would use, and whether PyTorch has CUDA and which attention `trl best` runs with."""
    ours = "import jax, json; d = jax.devices()[0]; print(json.dumps({'platform': d.platform, 'kind': d.device_kind}))"
    theirs = (
        "import json, torch; from benchmarks.gpu import best_attention; "
        "print(json.dumps({'cuda': torch.cuda.is_available(), 'attention': best_attention()}))"
    )
    ours_on, theirs_on = (
        in_fresh_process([python, "-c", code], {"JAX_PLATFORMS": ""})
        for python, code in ((sys.executable, ours), (peer_python, theirs))
    )
    return ours_on, theirs_on


def config(shape: Shape, branches: int = 1):
    """The run, as `python -m fit_jax.train` would be asked for it."""
    from fit_jax.config import load_config

    options = {
        **shape.model,
        "task.name": "bbq",
        "focus.branches": branches,
        "tokenizer.path": Path(os.environ["FIT_JAX_DATA"]) / "tokenizers" / shape.tokenizer,
        "lora.rank": RANK,
        "lora.alpha": ALPHA,
        "lora.dropout": 0.0,
        "optimizer.learning_rate": RATE,
        "train.batch_size": shape.rows,
        "train.sequence_length": shape.tokens,
    }
    given = [("config", file) for file in shape.files] + list(options.items())
    return load_config([text for name, value in given for text in (f"--{name}", str(value))])


def decoder_of(run):
    """The decoder of a run, whose vocabulary its options or its file name."""
    from fit_jax.models.config import with_vocabulary

    return with_vocabulary(run.model, 0)


def multiplied_parameters(shape: Shape) -> int:
    """N: projections and vocabulary projection, without the input embeddings."""
    from fit_jax.models.flops import parameter_count

    model = decoder_of(config(shape))
    return parameter_count(model)[0] - model.vocab_size * model.width


def write_inputs(folder: Path, shape: Shape) -> None:
    """Both streams of batches, the examples in the rows that do not branch, and the shape for transformers."""
    from fit_jax.data.loader import TrainLoader
    from fit_jax.data.tasks import build_task
    from fit_jax.focus.prompts import PromptEncoder
    from fit_jax.focus.tokenizers import load_tokenizer
    from fit_jax.methods import training_method
    from fit_jax.models.families import config_to_hf

    run = config(shape)
    task = build_task(run.task, run.seed)
    encoder = PromptEncoder(load_tokenizer(str(run.tokenizer.path)), task.text)
    for branches in (BRANCHES, 1):
        chosen = config(shape, branches)
        loader = TrainLoader(training_method(task, chosen).sampler, encoder, chosen)
        batches = [loader.batch(step) for step in range(shape.skipped + shape.steps)]
        arrays: dict[str, Any] = {name: [getattr(batch, name) for batch in batches] for name in batches[0]._fields}
        np.savez(folder / f"batches_{branches}.npz", **arrays)
    examples = [example for step in range(PEER_BATCHES) for example in taken_apart(loader.batch(step))]
    (folder / "examples.json").write_text(json.dumps(examples))
    hf = config_to_hf(decoder_of(run), max_positions=shape.tokens, tokens={"pad_token_id": 0})
    (folder / "config.json").write_text(json.dumps({**hf, "dtype": run.model.param_dtype}))


def measured(side: str, shape: Shape, folder: Path) -> dict[str, float]:
    """Examples and tokens a second, and MiB at the peak."""
    timed, peak = here(side, shape, folder) if side.startswith("here") else trl(side, shape, folder)
    return {"examples": timed.examples / timed.seconds, "tokens": timed.tokens / timed.seconds, "mib": peak / 2**20}


def here(side: str, shape: Shape, folder: Path) -> tuple[Timed, float]:
    import jax

    from fit_jax.data.packing import Batch
    from fit_jax.parallel.mesh import make_mesh
    from fit_jax.parallel.processes import to_global
    from fit_jax.training.optimizer import make_optimizer
    from fit_jax.training.state import init_state
    from fit_jax.training.step import compile_train_step

    branches = BRANCHES if "branches" in side else 1
    run, stored = config(shape), np.load(folder / f"batches_{branches}.npz")
    batches = [Batch(*arrays) for arrays in zip(*(stored[field] for field in Batch._fields))]
    if "all positions" in side:
        batches = [with_all_targets(batch) for batch in batches]
    jax.devices()
    before = own_bytes()
    mesh, optimizer = make_mesh(run.mesh), make_optimizer(run.optimizer, len(batches))
    placed = init_state(decoder_of(run), run.lora, optimizer, mesh, run.seed)
    batch = to_global(batches[0], mesh)
    step = compile_train_step(placed.graphdef, optimizer, placed.state, batch)
    with watched() as peak:
        timed = own_steps(step, placed.state, batches, mesh, shape.skipped)
    used = jax.devices()[0].memory_stats()["peak_bytes_in_use"] if shape.gpu else peak.bytes - before
    return timed, used


def with_all_targets(batch):
    """Packed rows that do not branch, with the next token of its example as every token's target."""
    ids = np.roll(batch.tokens, -1, axis=1)
    row, target = np.nonzero(batch.target_weight)
    # The end token of an answer is no input.
    ids[row, batch.target_index[row, target]] = batch.target_ids[row, target]
    return batch._replace(
        target_index=np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape),
        target_ids=ids,
        target_slot=np.cumsum(batch.positions == 0, axis=1, dtype=np.int32) - 1,
        target_weight=(batch.visible_until > 0).astype(np.float32),
    )


def trl(side: str, shape: Shape, folder: Path) -> tuple[Timed, float]:
    import torch

    # So that its import does not count as memory of its steps.
    import trl as _  # noqa: F401  # pyright: ignore[reportMissingImports]
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    examples = json.loads((folder / "examples.json").read_text())
    best, before = side == "trl best", own_bytes()
    attention = best_attention() if best and shape.gpu else "sdpa"
    with torch.device("cuda" if shape.gpu else "cpu"):
        hf = AutoConfig.from_pretrained(folder)
        model = AutoModelForCausalLM.from_config(hf, dtype=hf.dtype, attn_implementation=attention)
    adapters = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear")
    model = get_peft_model(model, adapters)
    options: dict[str, Any] = {"per_device_train_batch_size": round(len(examples) / PEER_BATCHES)}
    if best:
        options |= {"completion_only_loss": True, "train_sampling_strategy": "group_by_length"}
    if attention.startswith("flash"):
        options |= {"packing": True, "per_device_train_batch_size": shape.rows, "train_sampling_strategy": "random"}
    if not shape.gpu:
        options |= {"use_cpu": True, "bf16": False}
    with watched() as peak:
        timed = trl_steps(
            model, examples, shape.skipped, shape.steps, learning_rate=RATE, max_length=shape.tokens, **options
        )
    return timed, torch.cuda.max_memory_allocated() if shape.gpu else peak.bytes - before


def best_attention() -> str:
    """Flash attention where it is installed; TRL packs rows only with it."""
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else "sdpa"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
