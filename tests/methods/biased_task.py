"""A small task with a strong shortcut, and a run of a method on it: where a debiasing method shows what it does.

A text is a row of words. One of them, `zig` or `zag`, agrees with the label in nine of ten training examples. The label
itself is said by one word out of many, which takes longer to learn.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from fit_jax.config import Config, EvaluationConfig, FocusConfig, MeshConfig, OptimizerConfig, TaskConfig, TrainConfig
from fit_jax.data.splits import Split
from fit_jax.data.task import Task
from fit_jax.evaluation.evaluator import answer
from fit_jax.evaluation.queries import Group, Query
from fit_jax.focus.example import Example, Spurious, TaskText, group_of
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.tokenizers import train_tokenizer
from fit_jax.models.config import DecoderConfig, LoraConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.run import Run, subject
from fit_jax.runs.trainer import train

RHO = 0.9
WORDS = ([f"n{i}" for i in range(12)], [f"p{i}" for i in range(12)])
FILLERS = [f"f{i}" for i in range(6)]
KEYWORDS = ("zig", "zag")
LABELS = ("no", "yes")
TEXT = TaskText(
    name="demo", instruction="?", input_template="{text}", cue="=", core="the words", spurious={"keyword": "the keyword"}
)


def examples_of(split: str, count: int, rho: float, seed: int = 0) -> list[Example]:
    """Examples whose keyword agrees with the label in `rho` of each label's."""
    rng = np.random.default_rng([seed, len(split), count])
    found = []
    for n in range(count):
        label = n % 2
        agrees = (n // 2) % 100 < round(100 * rho) if count >= 200 else rng.random() < rho
        value = label if agrees else 1 - label
        words = [str(rng.choice(WORDS[label])), KEYWORDS[value], *map(str, rng.choice(FILLERS, 2))]
        text = " ".join(rng.permutation(words))
        found.append(Example(f"{split}{n}", {"text": text}, LABELS, label, {"keyword": Spurious(KEYWORDS[value], value)}))
    return [found[i] for i in rng.permutation(count)]


def make_run(folder: Path, method: str, **train_fields) -> Run:
    config = Config(
        run_dir=str(folder),
        mesh=MeshConfig(data=1),
        focus=FocusConfig(branches=2),
        optimizer=OptimizerConfig(learning_rate=4e-3),
        train=TrainConfig(
            **{
                "method": method,
                "steps": 60,
                "batch_size": 16,
                "examples_per_step": 32,
                "sequence_length": 96,
                "validate_every": 20,
                "checkpoint_every": 1000,
                "best": "worst_group",
                **train_fields,
            }
        ),
        evaluation=EvaluationConfig(batch_size=32, validation_examples=200, splits=("iid",)),
    )
    splits = {name: Split(name, examples_of(name, n, rho), {}) for name, n, rho in (("train", 600, RHO), ("validation", 200, RHO), ("iid", 200, 0.5))}
    task = Task(text=TEXT, splits=splits)
    words = [" ".join([*WORDS[0], *WORDS[1], *FILLERS, *KEYWORDS, *LABELS, "? ="])] * 5
    from fit_jax.focus.instructions import paraphrases_of, instruction
    tokenizer = train_tokenizer(words, 400)
    encoder = PromptEncoder(tokenizer, TEXT, "after", "plain", 96)
    model = DecoderConfig(vocab_size=len(tokenizer), layers=2, width=32, feed_forward=64, heads=2, kv_heads=2, tied=False)
    return Run(config, folder, task, encoder, make_mesh(MeshConfig(data=1), jax.devices()[:1]), model, LoraConfig())


def group_accuracies(run: Run, split: str = "iid") -> dict:
    groups = [Group.of([Query(e, split, "none", "keyword", "train", "", e.label)]) for e in run.task.splits[split].examples]
    right: dict = {}
    for g, (p,) in zip(groups, answer(groups, subject(run))):
        right.setdefault(group_of(g.queries[0].example), []).append(p.correct)
    return {k: float(np.mean(v)) for k, v in right.items()}
