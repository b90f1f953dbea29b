"""Choosing among given answers here, beside lm-evaluation-harness and transformers, on the same weights and prompts.

    FIT_JAX_DATA=DATA python -m benchmarks.scoring bbq [--prompts 1200] [--rounds 3] [--peer_python PYTHON]
    python -m benchmarks.scoring RUN [--prompts 10000] ...
    FIT_JAX_DATA=DATA python -m benchmarks.scoring bbq --shape llama31_8b     one GPU; `--shape tiny`: that on a CPU

`bbq`: a Llama of 6 layers, width 288 and 32,000 tokens with random weights rates all three answers of BBQ questions
under all six focus types. RUN is a trained run, such as `runs/demo`, whose test prompts are asked. Sides: `here` (the
prompts of one text share it, all answers at once), `here, beams` (constrained beam search), `lm_eval` (its own Hugging
Face backend) and `generate` (transformers, a beam for each answer, constrained to them; padded batches of similar
length). Each side is a fresh process, the sides in turn, `--rounds` times; medians. Seconds are of scoring alone, on
token ids, with everything loaded and compiled, in the precision of the model's files: fp32 for `bbq`. Prints a table
and writes `runs/benchmarks/scoring_*.json`. A `--shape` of `benchmarks.gpu` takes that model with random weights in its
own precision and leaves the beams out. lm_eval gets batches of 64, the most that its automatic size would come to; the
search for that size would count as scoring.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks.gpu import SHAPES, config, decoder_of, devices
from benchmarks.processes import in_fresh_process
from benchmarks.training import SHAPE

OUTPUT = Path("runs/benchmarks")
ROWS = 64  # of a batch; here a row holds a tree of tokens, there one sequence
TREES = 16  # rows of trees in a batch here: about as many tokens

# A prompt's token ids, and its answers'.
Prompt = tuple[np.ndarray, list[np.ndarray]]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=str(__doc__).split("\n\n")[0])
    parser.add_argument("what", help="bbq, or a run's folder")
    parser.add_argument("--shape", choices=SHAPES, help="of bbq's model")
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer_python", default=sys.executable, help="interpreter that has lm_eval and torch")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.side:
        print(json.dumps(measured(asked.side, Path(asked.what))))
        return 0
    bbq = asked.what == "bbq"
    if asked.shape and not bbq:
        parser.error("--shape goes with bbq; a run has a shape of its own")
    if bbq and "FIT_JAX_DATA" not in os.environ:
        parser.error("set FIT_JAX_DATA to the folder that holds bbq and tokenizers")
    gpu, environment = asked.shape is not None and SHAPES[asked.shape].gpu, {}
    if gpu:
        ours_on, theirs_on = devices(asked.peer_python)
        if not (ours_on["platform"] == "gpu" and theirs_on["cuda"]):
            print("no GPU that JAX and PyTorch can use; with --shape tiny it runs on a CPU", file=sys.stderr)
            return 2
        # The weights are written from here, and the card is left to the sides.
        jax.config.update("jax_platforms", "cpu")
        environment = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
    found: dict[str, list[dict]] = {side: [] for side in (("here", "lm_eval") if asked.shape else SIDES)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        trees = write_bbq(folder, asked.shape) if bbq else write_run(folder, asked.what)
        count = write_prompts(folder, trees, asked.prompts or (1200 if bbq else 10000))
        for _ in range(asked.rounds):
            for side, rows in found.items():
                python = sys.executable if side.startswith("here") else asked.peer_python
                command = [python, "-m", "benchmarks.scoring", str(folder), "--side", side]
                rows.append(in_fresh_process(command, environment))
    report(f"scoring_{asked.shape or Path(asked.what).name}", count, found)
    return 0


def report(name: str, prompts: int, found: dict[str, list[dict]]) -> None:
    ours = median(row["seconds"] for row in found["here"])
    chosen = np.array(found["here"][0]["chosen"])
    table = {}
    print(f"{'':14}{'prompts/s':>11}{'here is':>9}{'same answer':>13}")
    for side, rows in found.items():
        seconds = median(row["seconds"] for row in rows)
        same = float((np.array(rows[0].pop("chosen")) == chosen).mean())
        table[side] = {"prompts_s": prompts / seconds, "here_is": seconds / ours, "same": same}
        print(f"{side:14}{prompts / seconds:11.1f}{seconds / ours:8.2f}x{same:13.4f}")
    seconds = {side: [row["seconds"] for row in rows] for side, rows in found.items()}
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / f"{name}.json").write_text(json.dumps({"prompts": prompts, "sides": table, "seconds": seconds}, indent=2))


def write_bbq(folder: Path, shape: str | None) -> Iterator[tuple]:
    """A random model with a real tokenizer; the trees of BBQ's test questions."""
    from flax import nnx

    from fit_jax.config import TaskConfig
    from fit_jax.data.tasks import build_task
    from fit_jax.focus.prompts import PromptEncoder
    from fit_jax.focus.tokenizers import load_tokenizer
    from fit_jax.models.decoder import Decoder
    from fit_jax.models.export import save_merged
    from fit_jax.models.families import config_from_hf, config_to_hf

    folder.mkdir()
    model, hf, name = config_from_hf(SHAPE, "config.json"), SHAPE, "llama2_32k"
    if shape:
        model, name = decoder_of(config(SHAPES[shape])), SHAPES[shape].tokenizer
        tokens = {"pad_token_id": 0}
        hf = {**config_to_hf(model, max_positions=SHAPES[shape].tokens, tokens=tokens), "dtype": model.param_dtype}
    (folder / "config.json").write_text(json.dumps(hf))
    save_merged(folder, Decoder(model, rngs=nnx.Rngs(0)), jax.numpy.dtype(model.param_dtype))
    tokenizer = load_tokenizer(str(Path(os.environ["FIT_JAX_DATA"]) / "tokenizers" / name))
    tokenizer.save_pretrained(folder)
    task = build_task(TaskConfig(name="bbq"), 0)
    return asked_of(task, PromptEncoder(tokenizer, task.text), 0)


def write_run(folder: Path, run: str) -> Iterator[tuple]:
    """A run's merged model; the trees of its test splits."""
    from fit_jax.conversion.convert import export_merged
    from fit_jax.runs.run import open_run

    export_merged(run, folder)
    opened = open_run(run)
    return asked_of(opened.task, opened.encoder, opened.config.seed)


def asked_of(task, encoder, seed: int) -> Iterator[tuple]:
    """The prompts of each test example under all six focus types, held-out; examples of all splits in turn."""
    from fit_jax.evaluation.queries import ask, encode

    splits = [task.splits[name].examples for name in task.test_splits]
    examples = (split[n] for n in range(max(map(len, splits))) for split in splits if n < len(split))
    for example in examples:
        yield from encode(encoder, [ask(task.text, "", example, ("heldout",), seed)])


def write_prompts(folder: Path, trees: Iterator[tuple], count: int) -> int:
    """Writes trees of so many prompts at least; returns how many prompts they hold."""
    taken, held = [], 0
    for tree in trees:
        taken.append([[prompt.prompt.tolist(), [answer.tolist() for answer in prompt.answers]] for prompt in tree])
        held += len(tree)
        if held >= count:
            break
    (folder / "prompts.json").write_text(json.dumps(taken))
    return held


def measured(side: str, folder: Path) -> dict:
    """Seconds to rate all prompts, once what is needed is loaded and compiled, and the answer chosen for each."""
    trees = json.loads((folder / "prompts.json").read_text())
    tree_of = [[(np.array(p, np.int32), [np.array(a, np.int32) for a in answers]) for p, answers in t] for t in trees]
    run, warm_up = SIDES[side](folder, tree_of)
    warm_up()
    start = time.perf_counter()
    chosen = run()
    return {"seconds": time.perf_counter() - start, "chosen": [int(c) for c in chosen]}


Side = tuple[Callable[[], Sequence[int]], Callable[[], object]]


def here(folder: Path, trees: list[list[Prompt]]) -> Side:
    from fit_jax.config import MeshConfig
    from fit_jax.evaluation.scoring import Scorer
    from fit_jax.focus.prompts import EncodedPrompt
    from fit_jax.parallel.mesh import make_mesh

    graphdef, params = ours(folder)
    scorer = Scorer(graphdef, make_mesh(MeshConfig()), TREES)
    groups = [[EncodedPrompt(prompt, tuple(answers)) for prompt, answers in tree] for tree in trees]

    def run() -> list[int]:
        return [int(s.log_prob.argmax()) for scores in scorer.score(params, groups) for s in scores]

    return run, run


def here_beams(folder: Path, trees: list[list[Prompt]]) -> Side:
    from fit_jax.evaluation.beams import search_all
    from fit_jax.focus.prompts import EncodedPrompt

    graphdef, params = ours(folder)
    prompts = [EncodedPrompt(prompt, tuple(answers)) for tree in trees for prompt, answers in tree]

    def run() -> list[int]:
        return [argmax(found) for found in search_all(graphdef, params, prompts, None, ROWS)]

    return run, run


def argmax(log_probs: np.ndarray) -> int:
    return int(np.argmax(log_probs))


def ours(folder: Path):
    from fit_jax.models.config import ModelConfig
    from fit_jax.models.model_folder import resolve_pretrained
    from fit_jax.models.weights import abstract_parameters, load_weights

    dtype = dtype_of(folder)
    model = resolve_pretrained(ModelConfig(param_dtype=dtype, compute_dtype=dtype), str(folder))
    graphdef, shapes = abstract_parameters(model)
    return graphdef, (load_weights(model, shapes),)


def dtype_of(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text()).get("dtype", "float32")


def lm_eval(folder: Path, trees: list[list[Prompt]]) -> Side:
    from lm_eval.models.huggingface import HFLM

    load: Any = HFLM  # its decorator has no types
    device = "cuda" if os.environ["JAX_PLATFORMS"] == "cuda" else "cpu"
    model = load(str(folder), device=device, batch_size=ROWS, dtype=dtype_of(folder))
    prompts = [prompt for tree in trees for prompt in tree]

    def asked(prompts: Sequence[Prompt]) -> list[int]:
        # The harness names a request by its texts; any that are the request's own will do.
        requests = [
            ((f"{n}", f"{m}"), prompt.tolist(), answer.tolist())
            for n, (prompt, answers) in enumerate(prompts)
            for m, answer in enumerate(answers)
        ]
        scores = iter(model._loglikelihood_tokens(requests, disable_tqdm=True))
        return [argmax(np.array([next(scores)[0] for _ in answers])) for _, answers in prompts]

    return lambda: asked(prompts), lambda: asked(prompts[:ROWS])


def generate(folder: Path, trees: list[list[Prompt]]) -> Side:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype_of(folder))).eval()
    prompts = [prompt for tree in trees for prompt in tree]

    def search(part: Sequence[Prompt]) -> list[int]:
        width = max(len(prompt) for prompt, _ in part)
        ids, mask = np.zeros((len(part), width), np.int64), np.zeros((len(part), width), np.int64)
        for row, (prompt, _) in enumerate(part):
            ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
        end = int(part[0][1][0][-1])

        def allowed(row: int, sequence: torch.Tensor) -> list[int]:
            written = sequence[width:].tolist()
            n = len(written)
            following = {int(a[n]) for a in part[row][1] if len(a) > n and a[:n].tolist() == written}
            return sorted(following) or [end]

        with torch.no_grad():
            made = model.generate(
                torch.from_numpy(ids),
                attention_mask=torch.from_numpy(mask),
                num_beams=max(len(answers) for _, answers in part),
                do_sample=False,
                length_penalty=0.0,  # sums of log-probabilities, as everywhere here
                max_new_tokens=max(len(answer) for _, answers in part for answer in answers),
                prefix_allowed_tokens_fn=allowed,
                eos_token_id=end,
                pad_token_id=end,
            )[:, width:].tolist()
        return [
            next(n for n, answer in enumerate(answers) if written[: len(answer)] == answer.tolist())
            for written, (_, answers) in zip(made, part)
        ]

    def run(prompts: Sequence[Prompt]) -> list[int]:
        # Prompts of similar length are searched together.
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n][0]))
        chosen = [0] * len(prompts)
        for start in range(0, len(order), ROWS):
            part = order[start : start + ROWS]
            for number, found in zip(part, search([prompts[n] for n in part])):
                chosen[number] = found
        return chosen

    return lambda: run(prompts), lambda: run(prompts[:ROWS])


SIDES: dict[str, Callable[[Path, list[list[Prompt]]], Side]] = {
    "here": here,
    "here, beams": here_beams,
    "lm_eval": lm_eval,
    "generate": generate,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
