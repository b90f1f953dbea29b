"""A small demo task, its encoder and an untrained model: fixtures of the packages that ask models questions."""

import math
import re
import shutil
import subprocess
from functools import cache

import jax
import pytest
from flax import nnx

from fit_jax.config import Config, EvaluationConfig, MeshConfig, TaskConfig
from fit_jax.data.task import Task
from fit_jax.data.tasks import build_task
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.focus.tokenizers import train_tokenizer
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.parallel.mesh import make_mesh

# Settings of the smallest run that the Python API tunes.
SMALLEST = {
    "tokenizer.vocab_size": 300,
    "model.layers": 1,
    "model.width": 16,
    "model.feed_forward": 24,
    "model.heads": 2,
    "model.kv_heads": 1,
    "train.steps": 2,
    "train.batch_size": 8,
    "evaluation.paraphrases": ["heldout"],
}


@pytest.fixture(scope="session")
def config() -> Config:
    """A run of few examples."""
    return Config(
        task=TaskConfig(train_examples=40, validation_examples=12, test_examples=10),
        evaluation=EvaluationConfig(paraphrases_each=1, batch_size=4, validation_examples=10),
    )


@pytest.fixture(scope="session")
def task(config) -> Task:
    return build_task(config.task, config.seed)


@pytest.fixture(scope="session")
def encoder(task) -> PromptEncoder:
    texts = [
        f"{task.text.instruction} {e.slots['text']} {' '.join(e.candidates)}" for e in task.splits["train"].examples
    ]
    return PromptEncoder(train_tokenizer(texts, 320), task.text)


@pytest.fixture(scope="session")
def decoder() -> Decoder:
    shape = DecoderConfig(vocab_size=320, layers=2, width=32, feed_forward=48, heads=4, kv_heads=2, tied=True)

    def make() -> Decoder:
        return Decoder(shape, rngs=nnx.Rngs(1))

    # One program in place of one for each operation.
    return nnx.merge(nnx.graphdef(nnx.eval_shape(make)), jax.jit(lambda: nnx.state(make()))())


@pytest.fixture(scope="session")
def params(decoder):
    """The decoder's states, in one part."""
    return (nnx.state(decoder),)


@pytest.fixture(scope="session")
def make_scorer(decoder):
    """Builds, once each, a scorer on a mesh of the given sizes (default: one device)."""

    @cache
    def make(rows: int = 4, **sizes: int) -> Scorer:
        devices = jax.devices()[: math.prod(sizes.values())]
        mesh = make_mesh(MeshConfig(**{"data": 1, **sizes}), devices)
        return Scorer(nnx.graphdef(decoder), mesh, rows)

    return make


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """Opens a page in a real browser, runs a script in it, and returns what the page then holds."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("needs a Chromium browser on PATH")
    folder = tmp_path_factory.mktemp("browser")
    quiet = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    more = f"--disable-component-update --virtual-time-budget=2000 --user-data-dir={folder} --dump-dom"

    def show(page, script: str = "") -> str:
        copy = folder / "page.html"
        # The page forbids scripts that are not its own.
        text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
        copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
        command = [browser, *quiet.split(), *more.split(), copy.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return show
