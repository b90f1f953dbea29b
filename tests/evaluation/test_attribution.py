"""What an answer rests on: against the gradient of plain sequences, and tokens against the text they make."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.evaluation.attribution import Attributor, pieces
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.models.attention import Scope
from fit_jax.models.block import LayerHook
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Given(LayerHook):
    """Embeddings in place of the tokens' own."""

    x: jax.Array

    def embedded(self, x):
        return self.x


@pytest.fixture(scope="module")
def prompt():
    rng = np.random.default_rng(0)
    answers = tuple(rng.integers(2, 320, n).astype(np.int32) for n in (2, 1, 3))
    return EncodedPrompt(rng.integers(2, 320, 11).astype(np.int32), answers)


@pytest.fixture(scope="module")
def expected(decoder, prompt):
    """By answer, the weights of a log-odds that is made of one plain sequence a candidate."""
    head = decoder.embed_tokens(jnp.asarray(prompt.prompt)[None])

    def log_prob(x, answer):
        tokens = np.concatenate([prompt.prompt, answer[:-1]])[None]
        length = tokens.shape[1]
        x = jnp.concatenate([x, decoder.embed_tokens(jnp.asarray(answer[None, :-1]))], axis=1)
        scope = Scope.of_rows(jnp.arange(length)[None], jnp.full((1, length), length))
        hidden, _ = decoder.walk(jnp.asarray(tokens), scope, Given(x))
        logits = jax.nn.log_softmax(decoder.logits(hidden)[0, len(prompt.prompt) - 1 :])
        return logits[jnp.arange(len(answer)), answer].sum()

    def log_odds(x):
        scores = jnp.stack([log_prob(x, answer) for answer in prompt.answers])
        return jnp.stack([scores[n] - jax.nn.logsumexp(jnp.delete(scores, n)) for n in range(3)])

    return jax.jit(lambda x: jnp.abs(jax.jacrev(log_odds)(x) * x)[:, 0].sum(-1))(head)


@pytest.mark.parametrize("sizes", [{}, {"data": 2, "tensor": 2}])
def test_weights_are_gradient_times_input_of_the_log_odds(sizes, decoder, params, prompt, expected):
    mesh = make_mesh(MeshConfig(**{"data": 1, **sizes}), jax.devices()[: 4 if sizes else 1])
    found = Attributor(nnx.graphdef(decoder), mesh, 16)
    for answer in range(3):
        assert_close(found.attribute(params, prompt, answer), expected[answer], 2e-5)


def test_pieces_make_up_the_text(encoder):
    text = "the lamp is é 中 🙂!\nAnswer:"
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = list(pieces(encoder.tokenizer, ids))
    assert "".join(piece for piece, _ in found) == text
    assert sum(tokens for _, tokens in found) == len(ids)
    assert any(tokens > 1 for _, tokens in found)  # the emoji is of several tokens
    assert {piece for piece, _ in found} >= {"🙂", "\n"}
    assert list(pieces(encoder.tokenizer, [])) == []
