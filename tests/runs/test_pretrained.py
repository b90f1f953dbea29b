"""Training that starts from a pretrained model: the same logits at first, lower loss after, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import MeshConfig, OptimizerConfig
from fit_jax.conversion.parity import probe_logits, probe_tokens
from fit_jax.models.config import DecoderConfig, ModelConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import save_own
from fit_jax.models.families import config_to_hf
from fit_jax.models.head import target_log_probs
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import resolve_model
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.pretrained import pretrained_state
from fit_jax.training.optimizer import make_optimizer

from ..closeness import assert_close

SHAPE = DecoderConfig(vocab_size=64, layers=3, width=32, feed_forward=48, heads=4, kv_heads=2)
LORA = LoraConfig(rank=4, dropout=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model on disk, and its logits."""
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Decoder(SHAPE, rngs=nnx.Rngs(0))))
    generator = np.random.default_rng(0)
    state = jax.tree.map(
        lambda a: jnp.asarray(
            generator.normal(a.ndim == 1, 0.2 if a.ndim == 1 else a.shape[-1] ** -0.5, a.shape), a.dtype
        ),
        shapes,
    )
    folder = tmp_path_factory.mktemp("base")
    decoder = nnx.merge(graphdef, state)
    save_own(folder, decoder, config_to_hf(decoder.config, max_positions=64, tokens={}))
    return folder, probe_logits(graphdef, (state,), probe_tokens(SHAPE))


def started(folder, lora, **fields):
    model = resolve_model(ModelConfig(pretrained=str(folder), **fields))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    return pretrained_state(model, lora, make_optimizer(OptimizerConfig(), 10), mesh, 0)


@pytest.mark.parametrize("lora", [LoraConfig(), LORA, LoraConfig(rank=4, dora=True)], ids=["whole", "lora", "dora"])
def test_training_starts_where_the_model_stands(base, lora):
    folder, expected = base
    placed = started(folder, lora)
    assert_close(probe_logits(placed.graphdef, placed.state.params, probe_tokens(SHAPE)), expected, tolerance=2e-5)
    assert int(placed.state.step) == 0
    for array in jax.tree.leaves(placed.state):
        assert len(array.sharding.device_set) == 8
    assert jax.tree.leaves(placed.state.opt_state)
    assert bool(jax.tree.leaves(placed.state.frozen)) == bool(lora.rank)


def test_adapters_train_on_a_quantised_base_and_it_stays_as_it_is(base):
    folder, _ = base
    placed = started(folder, LORA, quantize="nf4")
    trainable, frozen = placed.state.params
    tokens = jnp.asarray(probe_tokens(SHAPE))
    B, T = tokens.shape
    positions = jnp.tile(jnp.arange(T, dtype=jnp.int32)[None], (B, 1))

    @jax.jit
    def step(trainable):
        def loss(trainable):
            decoder = nnx.merge(placed.graphdef, trainable, frozen)
            hidden = decoder(tokens, positions, jnp.full((B, T), T, jnp.int32))
            return -target_log_probs(decoder, hidden[:, :-1], tokens[:, 1:])[0].mean()

        value, gradient = jax.value_and_grad(loss)(trainable)
        return value, jax.tree.map(lambda p, g: p - 0.5 * g, trainable, gradient)

    losses = []
    for _ in range(12):
        value, trainable = step(trainable)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 0.1
    assert {leaf.dtype for leaf in jax.tree.leaves(frozen)} >= {jnp.dtype(jnp.uint8)}
