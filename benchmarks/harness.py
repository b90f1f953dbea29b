"""lm-evaluation-harness on one model through our adapter and through its own Hugging Face backend, fp32.

    python -m benchmarks.harness MODEL [--rows 100]

MODEL is a Hugging Face folder, or a llama2.c file, which is converted first. The tasks are made on the spot, one for
each kind of request: which thing a story ends with (`loglikelihood`), the perplexity of stories
(`loglikelihood_rolling`), and what is written after a story's beginning (`generate_until`). Prints both backends'
metrics and seconds, writes `runs/benchmarks/harness.json`, and ends with status 1 where the metrics differ.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.models import hugging_face_folder

OUTPUT = Path("runs/benchmarks/harness.json")
SECONDS = "seconds, compiling included"
NAMES, THINGS = ("Lily", "Tom", "Ben", "Sue", "Max"), ("ball", "dog", "cake", "hat", "boat")
STORIES = (
    "Once upon a time, there was a little girl named {name}. {name} had a {thing}. She loved her",
    "One day, {name} went to the park and saw a big {thing}. {name} wanted to have the",
    "{name} was sad because the {thing} was lost. {name}'s mom said, \"Let us look for the",
    "{name} and a friend had a {thing}. They were happy and they played with the",
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness")
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=100)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = hugging_face_folder(asked.model, scratch)
        tasks = write_tasks(Path(scratch), asked.rows)
        found = {name: measured(make(folder), tasks) for name, make in (("here", adapter), ("hf backend", backend))}
    pairs = [(found["here"][name], found["hf backend"][name]) for name in found["here"] if name != SECONDS]
    same = all(math.isclose(ours, theirs, rel_tol=1e-4) for ours, theirs in pairs)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"model": asked.model, "rows": asked.rows, **found, "same": same}, indent=2) + "\n")
    for metric in found["here"]:
        print(f"{metric:34}" + "".join(f"  {name} {values[metric]:.4f}" for name, values in found.items()))
    print("same" if same else "NOT THE SAME")
    return 0 if same else 1


def write_tasks(folder: Path, rows: int) -> list[str]:
    """The tasks' YAML files, over one JSONL of stories whose endings are known."""
    made = []
    for text, name, thing in product(STORIES, NAMES, THINGS):
        story = text.format(name=name, thing=thing)
        endings = [f" {other}." for other in THINGS]
        made.append(
            {
                "story": story,
                "thing": thing,
                "endings": endings,
                "right": THINGS.index(thing),
                "whole": f"{story} {thing}.",
            }
        )
    order = np.random.default_rng(0).permutation(len(made))[:rows]
    data = folder / "stories.jsonl"
    data.write_text("".join(json.dumps(made[i]) + "\n" for i in order))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": "{{story}}",
    }
    tasks = {
        "endings": {
            "output_type": "multiple_choice",
            "doc_to_choice": "endings",
            "doc_to_target": "right",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "stories": {
            "output_type": "loglikelihood_rolling",
            "doc_to_target": "{{whole}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
        "written": {
            "output_type": "generate_until",
            "doc_to_target": "{{thing}}",
            "filter_list": [
                {"name": "word", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
            ],
            "generation_kwargs": {"until": ["."], "max_gen_toks": 16, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    }
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **shared, **task}))
    return [str(folder / f"{name}.yaml") for name in tasks]


def measured(model: Any, tasks: list[str]) -> dict[str, float]:
    """Metrics of every task, and the seconds they took, what is compiled or loaded on the way included."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)
    start = time.perf_counter()
    evaluate: Any = simple_evaluate  # its decorator has no types
    results = evaluate(model, tasks=tasks, task_manager=manager, bootstrap_iters=0, log_samples=False)["results"]
    found = {
        f"{task} {metric.removesuffix(',none')}": value
        for task, metrics in results.items()
        for metric, value in metrics.items()
        if isinstance(value, float) and "stderr" not in metric
    }
    return {**found, SECONDS: time.perf_counter() - start}


def adapter(folder: str) -> object:
    from fit_jax.config import MeshConfig
    from fit_jax.conversion.opened import open_model
    from fit_jax.evaluation.harness import HarnessModel
    from fit_jax.evaluation.scoring import Scorer
    from fit_jax.parallel.mesh import make_mesh

    loaded = open_model(folder)
    assert loaded.tokenizer is not None, f"{folder} holds no tokenizer"
    scorer = Scorer(loaded.graphdef, make_mesh(MeshConfig()), 16)
    return HarnessModel(scorer, loaded.params, loaded.tokenizer, loaded.hf["max_position_embeddings"])


def backend(folder: str) -> object:
    import torch
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(1)
    load: Any = HFLM  # its decorator has no types
    return load(folder, device="cpu", batch_size=16, dtype="float32")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
