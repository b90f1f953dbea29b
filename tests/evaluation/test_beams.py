"""Beam search over a candidate set against exact scoring of each candidate."""

import jax
import numpy as np
import pytest
from flax import nnx

from fit_jax.config import MeshConfig
from fit_jax.errors import InputError
from fit_jax.evaluation import beams as beams_module
from fit_jax.evaluation.beams import beam_search, build_tries
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.prompts import EncodedPrompt
from fit_jax.models.config import DecoderConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.linear_config import LinearConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import split_by_rows
from fit_jax.parallel.sharding import lay_out_tree

from ..closeness import assert_close

VOCAB, PROMPTS = 23, 12


MORE = (
    {},
    {"window": 6, "sliding_layers": (0,), "kv_heads": 1, "tied": False},
    {"linear": LinearConfig(layers=(0,), value_heads=2, key_width=8, value_width=10), "output_gate": True},
)


@pytest.fixture(scope="module", params=[0, 1, pytest.param(2, marks=pytest.mark.slow)])
def model(request):
    """A random model whose predictions are far from uniform.

    The second has sliding layers and grouped heads; the first layer of the third keeps a state.
    """
    more = MORE[request.param]
    config = DecoderConfig(vocab_size=VOCAB, layers=2, width=16, feed_forward=24, heads=2, **{"kv_heads": 2, **more})

    def draw():
        decoder = Decoder(config, rngs=nnx.Rngs(request.param))
        decoder.embed.embedding[...] *= 40 if config.tied else 1
        if not config.tied:
            decoder.lm_head.kernel[...] *= 20
        return decoder

    return nnx.graphdef(nnx.eval_shape(draw)), (jax.jit(lambda: nnx.state(draw()))(),)


def largest_prompt() -> EncodedPrompt:
    """As long and with as many, as long and as branching answers as any of `random_prompts`."""
    answers = [np.array([first, 0, 1], np.int32) for first in range(4)]
    answers.append(np.array([0, 0, 1, 2, 3], np.int32))
    return EncodedPrompt(np.arange(40, dtype=np.int32) % VOCAB, tuple(answers))


def random_prompts(seed: int, count: int = PROMPTS) -> list[EncodedPrompt]:
    """Prompts of all lengths with 1 to 7 answers of 1 to 5 tokens; some begin another one, some are equal.

    The last one is the largest, so that all lists of as many prompts share their compiled programs.
    """
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(count - 1):
        answers = [rng.integers(0, VOCAB, rng.integers(1, 4)).astype(np.int32) for _ in range(rng.integers(1, 5))]
        chosen = answers[rng.integers(len(answers))]
        longer = np.concatenate([chosen, rng.integers(0, VOCAB, rng.integers(1, 3)).astype(np.int32)])
        answers += [[longer], [longer, chosen], [longer, longer[:-1], longer]][rng.integers(3)]
        order = rng.permutation(len(answers))
        prompt = rng.integers(0, VOCAB, rng.integers(1, 40)).astype(np.int32)
        prompts.append(EncodedPrompt(prompt, tuple(answers[i] for i in order)))
    return [*prompts, largest_prompt()]


@pytest.fixture(scope="module")
def exact(model):
    """Scores of each answer, from a pass of its own."""
    scorer = Scorer(model[0], make_mesh(MeshConfig(data=1), jax.devices()[:1]), 4)

    def score(prompts):
        return [scores[0].log_prob for scores in scorer.score(model[1], [[p] for p in prompts])]

    return score


@pytest.mark.parametrize("seed", range(4))
def test_all_beams_are_an_exact_search(model, exact, seed):
    prompts = random_prompts(seed)
    for found, scores in zip(beam_search(*model, prompts), exact(prompts), strict=True):
        assert_close(found, scores, tolerance=1e-4)
        assert (
            scores.max() - scores[found.argmax()] < 1e-4 * np.abs(scores).max()
        )  # the same answer, or one that is equal to it


def test_fewer_beams_find_true_scores_and_the_greedy_beginnings(model, exact):
    prompts = random_prompts(9)
    everything = exact(prompts)
    reached = {}
    for beams in (1, 2):
        found_all = beam_search(*model, prompts, beams)
        reached[beams] = [np.isfinite(found) for found in found_all]
        for found, scores, kept in zip(found_all, everything, reached[beams]):
            assert kept.any()
            assert_close(found[kept], scores[kept], tolerance=1e-4)
    assert sum(map(np.sum, reached[1])) < sum(map(np.sum, reached[2])) <= sum(map(len, everything))


def test_one_beam_is_greedy_down_the_tree(model, exact):
    """The single beam keeps the likeliest beginning, so only answers along it and their siblings are reached."""
    a, b = np.array([3, 4, 5], np.int32), np.array([6, 7, 8], np.int32)
    prompt = np.array([1, 2, 3], np.int32)
    beside = random_prompts(9, PROMPTS - 1)  # of the shapes that are compiled already
    first = exact([EncodedPrompt(prompt, (a[:1], b[:1])), *beside])[0].argmax()
    found = beam_search(*model, [EncodedPrompt(prompt, (a, b)), *beside], 1)[0]
    assert np.isfinite(found).tolist() == [first == 0, first == 1]


def test_a_rows_answer_does_not_depend_on_the_rows_beside_it(model):
    prompts = random_prompts(5)
    together = beam_search(*model, prompts)
    for prompt, found in list(zip(prompts, together))[:5]:
        others = [prompts[-1]] * (PROMPTS - 1)
        assert_close(beam_search(*model, [prompt, *others])[0], found, tolerance=1e-4)


def test_rows_are_split_over_the_mesh_which_changes_nothing(model, monkeypatch):
    """Seven prompts on eight shards of rows: the last one appears twice."""
    split = []
    monkeypatch.setattr(beams_module, "split_by_rows", lambda *args: split.append(split_by_rows(*args)) or split[-1])
    graphdef, (state,) = model
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    spread = (jax.device_put(state, lay_out_tree(state, mesh).shardings),)
    prompts = random_prompts(3, 7)
    divided = beam_search(graphdef, spread, prompts)
    alone = beam_search(*model, [*prompts, *[prompts[-1]] * (PROMPTS - 7)])[:7]  # of the shapes compiled already
    for found, expected in zip(divided, alone, strict=True):
        assert_close(found, expected, tolerance=1e-4)
    for array in jax.tree.leaves(split[0]):
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {1}


def test_the_tree_shares_beginnings():
    grown = build_tries([[np.array([1, 2]), np.array([1, 3]), np.array([1]), np.array([1, 3])], [np.array([4])]])
    assert grown.ends == [[2, 3, 1, 3], [1]]
    assert (grown.depth, grown.width) == (2, 1)
    assert grown.trie.tokens[0, :2].tolist() == [[1, 0], [2, 3]]


def test_wrong_requests_are_named(model):
    prompt = np.array([1], np.int32)
    with pytest.raises(InputError, match="at least 1"):
        beam_search(*model, [EncodedPrompt(prompt, (prompt,))], 0)
    for answers in ((), (np.array([], np.int32),)):
        with pytest.raises(InputError, match="no answers"):
            beam_search(*model, [EncodedPrompt(prompt, answers)])
    with pytest.raises(InputError, match="prompt is empty"):
        beam_search(*model, [EncodedPrompt(prompt[:0], (prompt,))])
