"""A small task with a strong shortcut, and a run of a method on it: where a debiasing method shows what it does.

A text is a row of words. One of them, `zig` or `zag`, agrees with the label in nine of ten training examples. The label
itself is told by another word, one out of many, which takes longer to learn.
"""

from collections import defaultdict
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fit_jax.config import Config, EvaluationConfig, FocusConfig, MeshConfig, OptimizerConfig, TrainConfig
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import answer
from fit_jax.evaluation.queries import Group, Query
from fit_jax.focus.example import Example, Spurious, TaskText, group_of
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.tokenizers import train_tokenizer
from fit_jax.models.config import DecoderConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.run import Run, subject

RHO = 0.9
KEYWORDS = ("zig", "zag")
LABELS = ("no", "yes")
FILLERS = ("so", "we", "it")
TEXT = TaskText(
    name="demo",
    instruction="?",
    input_template="{text}",
    cue="=",
    core="the words",
    spurious={"keyword": "the keyword"},
)
_WORDS = np.random.default_rng(0).permutation(["".join(parts) for parts in product("bdfglm", "aeiou", "kpt")])
WORDS = (_WORDS[:30], _WORDS[30:60])  # those that say `no`, and those that say `yes`


def biased_examples(split: str, count: int, rho: float) -> list[Example]:
    """Examples of each label and keyword in proportion; whole hundreds of them have the rho exactly."""
    rng = np.random.default_rng([len(split), count])
    found = []
    for n in range(count):
        label = n % 2
        value = label if n // 2 % 50 < round(50 * rho) else 1 - label
        words = rng.permutation([rng.choice(WORDS[label]), KEYWORDS[value], *rng.permutation(FILLERS)[:2]])
        spurious = {"keyword": Spurious(KEYWORDS[value], value)}
        found.append(Example(f"{split}{n}", {"text": " ".join(words)}, LABELS, label, spurious))
    return [found[i] for i in rng.permutation(count)]


def biased_task() -> Task:
    """600 training and 200 validation examples of the bias, and 200 test examples without."""
    sizes = (("train", 600, RHO), ("validation", 200, RHO), ("iid", 200, 0.5))
    return Task(text=TEXT, splits={name: Split(name, biased_examples(name, n, rho), {}) for name, n, rho in sizes})


def make_run(folder: Path, method: str, **train: Any) -> Run:
    """A run of a method with a model of one layer, on one device."""
    fields = {
        "steps": 140,
        "batch_size": 8,
        "examples_per_step": 32,
        "sequence_length": 128,
        "validate_every": 30,
        "checkpoint_every": 1000,
        "best": "worst_group",
    }
    config = Config(
        run_dir=str(folder),
        mesh=MeshConfig(data=1),
        focus=FocusConfig(branches=2),
        optimizer=OptimizerConfig(learning_rate=4e-3),
        train=TrainConfig(**(fields | {"method": method} | train)),
        evaluation=EvaluationConfig(splits=("iid",)),
    )
    tokenizer = train_tokenizer([" ".join([*_WORDS, *FILLERS, *KEYWORDS, *LABELS, "? ="])] * 5, 500)
    encoder = PromptEncoder(tokenizer, TEXT, sequence_length=128)
    model = DecoderConfig(vocab_size=len(tokenizer), layers=1, width=32, feed_forward=32, heads=2, kv_heads=2)
    return Run(
        config, folder, biased_task(), encoder, make_mesh(MeshConfig(data=1), jax.devices()[:1]), model, LoraConfig()
    )


def worst_group(run: Run) -> float:
    """The accuracy of the worst group of the test split, asked without an instruction, of the best checkpoint."""
    examples = run.task.splits["iid"].examples
    groups = [Group.of([Query(e, "iid", "none", "keyword", "train", "", e.label)]) for e in examples]
    right = defaultdict(list)
    for example, (prediction,) in zip(examples, answer(groups, subject(run))):
        right[group_of(example)].append(prediction.correct)
    return min(float(np.mean(group)) for group in right.values())
