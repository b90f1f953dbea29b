"""How the documented commands run in a test: cut short, in one folder, each after those that make what it needs."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import NamedTuple

from .documented import ROOT, Command

DEMO = "--task.train_examples 64 --task.validation_examples 16 --task.test_examples 20"
MODEL = "--tokenizer.vocab_size 300 --model.layers 1 --model.width 32 --model.heads 2 --model.kv_heads 2"
TRAIN = (
    "--train.steps 2 --train.batch_size 8 --evaluation.splits [iid] --evaluation.examples 4 "
    "--evaluation.validation_examples 4 --evaluation.paraphrases [heldout] --evaluation.paraphrases_each 1"
)
PAIRS = f"{TRAIN} {MODEL} --task.train_examples 96 --train.sequence_length 600"
CELLS = "--seeds [0] --methods [sft_y,fit] --run.train.examples_per_step 1 " + f"{TRAIN} {DEMO}".replace("--", "--run.")
PLAN = (
    "--topology v5e:2x4 --model.layers 2 --model.width 32 --model.feed_forward 48 --model.heads 2 --model.kv_heads 2 "
    "--model.vocab_size 96 --train.sequence_length 32 --train.batch_size 8 --train.steps 10 --evaluation.batch_size 8"
)


class Way(NamedTuple):
    """How commands of one beginning run.

    Attributes:
        more: Options in the place of theirs, or beside them.
        slow: They are left to `pytest -m slow`.
        official: They need data files that may not be redistributed.
    """

    more: str = ""
    slow: bool = True
    official: bool = False


# By the beginning of the command; the longest counts.
WAYS = {
    "export": Way(slow=False),
    "awk": Way(slow=False),
    "tpu_scripts/": Way(slow=False),
    "make demo": Way(f"{TRAIN} {MODEL} {DEMO}"),
    "fit-jax --version": Way(slow=False),
    "python -m fit_jax.train": Way(f"{TRAIN} {MODEL} {DEMO}"),
    "python -m fit_jax.train --config configs/demo.yaml --focus.turn_share": Way(
        f"{TRAIN} {MODEL} {DEMO} --train.sequence_length 600"
    ),
    "python -m fit_jax.train --task.name jsonl": Way(f"{TRAIN} {MODEL}"),
    "python -m fit_jax.train --task.name jsonl --task.file tickets.yaml --model.pretrained": Way(TRAIN),
    "python -m fit_jax.train --config configs/stories_lora.yaml": Way(f"{TRAIN} {DEMO}"),
    "python -m fit_jax.train --config configs/stories_lora.yaml --rehearsal": Way(f"{TRAIN} {DEMO} --rehearsal.rows 8"),
    "python -m fit_jax.train --config configs/paper": Way(f"{TRAIN} {DEMO} --model.pretrained base"),
    "python -m fit_jax.train --config configs/smnli": Way(PAIRS, official=True),
    "python -m fit_jax.train --config configs/shans": Way(PAIRS, official=True),
    "python -m fit_jax.train --config configs/bbq": Way(PAIRS.replace("96", "7200"), official=True),
    "python -m fit_jax.train --config configs/mixture": Way(f"{TRAIN} {MODEL}", official=True),
    "python -m fit_jax.evaluate": Way("--evaluation.splits [low]"),
    "python -m fit_jax.evaluate runs/demo": Way("--evaluation.splits [low]", slow=False),
    # In words of so small a vocabulary three turns are longer than a row.
    "python -m fit_jax.evaluate runs/demo --evaluation.turns": Way(
        "--evaluation.splits [low] --train.long_text cut", slow=False
    ),
    "python -m fit_jax.steer": Way(slow=False),
    "python -m fit_jax.steer runs/tickets": Way(),
    "python -m fit_jax.steer runs/mixture_small": Way(official=True),
    "python -m fit_jax.steer runs/ss_two_features_small": Way(),
    "python -m fit_jax.data": Way(slow=False),
    "python -m fit_jax.experiment": Way(f"{CELLS} {MODEL.replace('--', '--run.')}"),
    "python -m fit_jax.experiment --config configs/experiments/paper": Way(
        f"{CELLS} --models [small.yaml]".replace("--run.train.examples_per_step 1", "")
    ),
    "python -m fit_jax.experiment --config configs/experiments/ablations": Way(
        f"{CELLS} {MODEL.replace('--', '--run.')}".replace("sft_y,", "")
    ),
    "python -m fit_jax.experiment --config configs/experiments/ablations/lora_rank": Way(CELLS.replace("sft_y,", "")),
    "python -m fit_jax.convert": Way(),
    "python -m fit_jax.convert export-adapter": Way("--from runs/stories_lora"),
    "python -m fit_jax.push": Way(),
    "python -m fit_jax.plan": Way(PLAN),
    "python -m fit_jax.plan --config configs/demo.yaml --topology v5e:16x16": Way(f"{PLAN} --slices 1"),
    "python -m fit_jax.plan --config configs/paper/tasks/ss.yaml --model.pretrained": Way(
        "--topology v5e:2x4 --mesh.fsdp 8"
    ),
}
# What must have run before a command that names this; what stands for a trained model is trained for two steps.
BEFORE = {
    "runs/demo": "make demo",
    "tickets.csv": "awk '/^```/ { fences++; next } fences == 1' docs/own_data.md | python -",
    "tickets.yaml": "python -m fit_jax.data describe tickets.csv --out tickets.yaml",
    "runs/tickets": "python -m fit_jax.train --task.name jsonl --task.file tickets.yaml --run_dir runs/tickets",
    "runs/mixture_small": "python -m fit_jax.train --config configs/mixture_small.yaml",
    "runs/ss_two_features_small": "python -m fit_jax.train --config configs/ss_two_features_small.yaml",
    "base": "python -m fit_jax.convert export-merged --from runs/demo --to base",
    "configs/stories_lora.yaml": "python -m fit_jax.convert export-merged --from runs/demo --to runs/stories260k",
    "configs/experiments/ablations/lora_rank.yaml": (
        "python -m fit_jax.convert export-merged --from runs/demo --to runs/stories260k"
    ),
    "[small.yaml]": "python -m fit_jax.convert export-merged --from runs/demo --to base",
    "runs/stories_lora": "python -m fit_jax.train --config configs/stories_lora.yaml",
}
MODULES = {name: f"fit_jax.{name}.__main__" for name in ("data", "experiment", "playground")}


def way_of(command: Command) -> Way | None:
    """How a command runs, if at all."""
    begins = [begin for begin in WAYS if command.called.startswith(begin)]
    return WAYS[max(begins, key=len)] if begins else None


def merged(arguments: list[str], more: str) -> list[str]:
    """Arguments with other values for some options, or with these options beside them."""
    names, values = shlex.split(more)[::2], shlex.split(more)[1::2]
    kept = [a for n, a in enumerate(arguments) if a not in names and arguments[max(n - 1, 0)] not in names]
    return [*kept, *(word for pair in zip(names, values) for word in pair)]


class Place:
    """A folder like a clone in which the docs' commands run, each once.

    Args:
        folder: An empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: set[Command] = set()
        self._numbers = count()
        for name in ("configs", "docs"):
            (folder / name).symlink_to(ROOT / name)
        for name in ("text.txt", "wiki.txt", "held_out.txt", "wiki_held_out.txt"):
            (folder / name).write_text("I bought the lamp in spring, the handle is superb.\n" * 20)
        for name in ("stories.jsonl", "held_out.jsonl"):
            (folder / name).write_text('{"text": "One day a lamp went to the park."}\n' * 20)
        (folder / "small.yaml").write_text("model: {pretrained: base}")
        (folder / "data" / "sst5").mkdir(parents=True)
        for part in ("train", "dev", "test"):  # a treebank
            trees = [
                f"({s} (2 {part}{n}) ({s} (2 a) ({s} (2 very) ({s} {w}{n}))))\n"
                for n in range(80)
                for s, w in ((0, "bad"), (4, "good"))
            ]
            (folder / "data" / "sst5" / f"{part}.txt").write_text("".join(trees))

    def run(self, command: Command) -> None:
        """Runs a command, if it has not run yet, after those that make what it names.

        Raises:
            AssertionError: It ended with another status than 0.
        """
        if command in self._done:
            return
        way = way_of(command)
        assert way is not None, f"{command.text}: say in WAYS how it runs, or in EXCEPTIONS why it cannot"
        words = _made(command) if command.called.startswith("make") else command.words
        if words[0] == "python":
            more = way.more
            if words[2] in ("fit_jax.train", "fit_jax.experiment") and command.text not in BEFORE.values():
                more += f" --run_dir runs/{next(self._numbers)}"
            words = [*words[:3], *merged(words[3:], more)]
        for word in words:
            if (before := BEFORE.get(word)) and before != command.text:
                self.run(Command(before))
        if words[0] == "python":
            name = words[2].removeprefix("fit_jax.")
            assert not importlib.import_module(MODULES.get(name, f"fit_jax.{name}")).main(words[3:])
        else:
            _shell(command, self.folder)
        self._done.add(command)


def _made(command: Command) -> list[str]:
    """What `make` would call of fit_jax."""
    lines = subprocess.run(
        ["make", "--dry-run", *command.words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (line,) = (line for line in lines if " -m fit_jax." in line)
    return ["python", *shlex.split(line)[1:]]


def _shell(command: Command, folder: Path) -> None:
    """Runs a line of bash; the scripts say what they would do."""
    text = re.sub(r"^(tpu_scripts/\S+)", rf"{ROOT}/\1 --dry-run", command.called)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FIT_", "SBATCH_"))}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
    lines = "\n".join(["set -euo pipefail", *command.exports, text])
    done = subprocess.run(["bash", "-c", lines], cwd=folder, env=clean, capture_output=True, text=True, timeout=60)
    assert not done.returncode, done.stderr
