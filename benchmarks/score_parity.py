"""Scores of a task's prompts here beside a plain transformers and PyTorch loop over the same prompts and weights.

    python -m benchmarks.score_parity MODEL [--prompts 2000] [--task bbq]

MODEL is a Hugging Face folder, or a llama2.c file, which is converted first. Every prompt is asked with each of its
candidate answers. Here they are packed, share their common tokens and are scored a batch at a time; there each prompt
with each answer is a forward pass of its own. Demanded: the same answer for at least 99.9 % of the prompts, and
log-probabilities of answers within 1e-4, both in fp32; the status is 1 where that is not so. Prints a table and
writes `runs/benchmarks/score_parity.json`.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.models import hugging_face_folder

OUTPUT = Path("runs/benchmarks/score_parity.json")
SAME_ANSWER, NATS = 0.999, 1e-4


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_parity")
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--task", default="demo")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = hugging_face_folder(asked.model, scratch)
        found = compare(folder, asked.task, asked.prompts)
    found["passed"] = found["same answer"] >= SAME_ANSWER and found["largest difference, nats"] <= NATS
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"model": asked.model, "task": asked.task, **found}, indent=2) + "\n")
    for name, value in found.items():
        print(f"{name:26} {value:.3g}" if isinstance(value, float) else f"{name:26} {value}")
    return 0 if found["passed"] else 1


def compare(folder: str, task_name: str, count: int) -> dict:
    """Both ways of scoring `count` prompts of a task with the model in `folder`."""
    prompts, ours, ours_seconds = ours_scores(folder, task_name, count)
    start = time.perf_counter()
    theirs = [np.array(answers) for answers in their_scores(folder, prompts)]
    their_seconds = time.perf_counter() - start
    return {
        "prompts": len(prompts),
        "answers": sum(map(len, ours)),
        "same answer": float(np.mean([a.argmax() == b.argmax() for a, b in zip(ours, theirs)])),
        "largest difference, nats": float(max(abs(a - b).max() for a, b in zip(ours, theirs))),
        "prompts a second, here": len(prompts) / ours_seconds,
        "prompts a second, there": len(prompts) / their_seconds,
    }


def ours_scores(folder: str, task_name: str, count: int) -> tuple[list, list[np.ndarray], float]:
    """The prompts, the log-probabilities of their answers, and the seconds that scoring took once compiled."""
    from fit_jax.config import MeshConfig, TaskConfig
    from fit_jax.conversion.opened import open_model
    from fit_jax.data.tasks import build_task
    from fit_jax.evaluation.queries import ask, encode
    from fit_jax.evaluation.scoring import Scorer
    from fit_jax.focus.prompts import PromptEncoder
    from fit_jax.parallel.mesh import make_mesh

    task = build_task(TaskConfig(name=task_name), 0)
    loaded = open_model(folder)
    assert loaded.tokenizer is not None, f"{folder} holds no tokenizer"
    groups, asked = [], 0
    for example in (e for name in task.test_splits for e in task.splits[name].examples):
        groups.append(ask(task.text, "iid", example, ("heldout",), 0))
        asked += len(groups[-1].instructions)
        if asked >= count:
            break
    trees = list(encode(PromptEncoder(loaded.tokenizer, task.text), groups))
    scorer = Scorer(loaded.graphdef, make_mesh(MeshConfig()), 16)
    list(scorer.score(loaded.params, trees))  # compiles
    start = time.perf_counter()
    scores = [s.log_prob for group in scorer.score(loaded.params, trees) for s in group]
    seconds = time.perf_counter() - start
    return [prompt for tree in trees for prompt in tree][:count], scores[:count], seconds


def their_scores(folder: str, prompts: list):
    """Per prompt, the log-probability of each answer from a forward pass over prompt and answer."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # these passes are too small to be worth sharing
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for prompt in prompts:
        scores = []
        for answer in prompt.answers:
            ids = torch.from_numpy(np.concatenate([prompt.prompt, answer]).astype(np.int64))[None]
            with torch.no_grad():
                logits = model(ids[:, :-1]).logits[0, -len(answer) :]
            picked = torch.log_softmax(logits, dim=-1).gather(1, ids[0, -len(answer) :, None])
            scores.append(float(picked.sum()))
        yield scores


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
