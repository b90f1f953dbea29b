"""A tiny model as `convert import` writes it and an adapter for it: fixtures of the packages that resolve configs."""

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.models.adapters import trained_adapter, write_adapter
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import save_own
from fit_jax.models.families import config_to_hf
from fit_jax.models.lora_config import LoraConfig

SHAPE = DecoderConfig(vocab_size=320, layers=2, width=32, feed_forward=48, heads=4, kv_heads=2, qkv_bias=True)
ADAPTER = LoraConfig(rank=3, alpha=7.0, targets=("q_proj", "down_proj"), rslora=True)


def random_decoder(lora: LoraConfig = LoraConfig(), shape: DecoderConfig = SHAPE) -> Decoder:  # noqa: B008
    """A decoder with random weights, drawn without compiling."""
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Decoder(shape, lora, rngs=nnx.Rngs(0))))
    generator = np.random.default_rng(0)
    state = jax.tree.map(lambda a: jax.numpy.asarray(generator.normal(0, 0.1, a.shape), a.dtype), shapes)
    return nnx.merge(graphdef, state)


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
    """An imported model without a tokenizer."""
    folder = tmp_path_factory.mktemp("imported")
    decoder = random_decoder()
    save_own(folder, decoder, config_to_hf(decoder.config, max_positions=64, tokens={}))
    return folder


@pytest.fixture(scope="session")
def adapter(tmp_path_factory):
    """An adapter in PEFT's format."""
    folder = tmp_path_factory.mktemp("adapter")
    write_adapter(folder, trained_adapter(random_decoder(ADAPTER), ADAPTER))
    return folder
