"""Scores of packed, shared, sharded trees against one plain forward pass a sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from fit_jax.data.layout import lay_out
from fit_jax.evaluation import scoring
from fit_jax.evaluation.queries import ask, encode
from fit_jax.evaluation.scoring import Scorer, plain_forward
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close


@pytest.fixture(scope="module")
def groups(task, encoder):
    """The encoded prompts of a few examples, in both paraphrase sets."""
    asked = [ask(task.text, "iid", e, ("train", "heldout"), 0) for e in task.splits["iid"].examples[:5]]
    return list(encode(encoder, asked))


@pytest.fixture(scope="module")
def scores(make_scorer, params, groups):
    return list(make_scorer().score(params, groups))


@pytest.fixture(scope="module")
def plain_log_prob(decoder):
    """log p(answer | prompt) and whether it is greedy, from one sequence alone in a row."""
    graphdef, state = nnx.split(decoder)
    T = 192

    @jax.jit
    def log_softmax(state, tokens, length):
        positions = jnp.arange(T, dtype=jnp.int32)[None]
        model = nnx.merge(graphdef, state)
        hidden = model(tokens, positions, jnp.full((1, T), length, jnp.int32))
        return jax.nn.log_softmax(model.logits(hidden), axis=-1)[0]

    def score(prompt, answer) -> tuple[float, bool]:
        sequence = np.concatenate([prompt, answer[:-1]])
        tokens = np.pad(sequence, (0, T - len(sequence)))[None]
        log_probs = np.asarray(log_softmax(state, tokens, len(sequence)))[len(prompt) - 1 : len(sequence)]
        chosen = log_probs[np.arange(len(answer)), answer]
        return float(chosen.sum()), bool((chosen >= log_probs.max(axis=-1)).all())

    return score


def test_each_answer_scores_as_it_would_alone(plain_log_prob, groups, scores):
    assert [len(s) for s in scores] == [len(g) for g in groups]
    for group, group_scores in list(zip(groups, scores))[:2]:
        for prompt, score in list(zip(group, group_scores))[::3]:
            expected = [plain_log_prob(prompt.prompt, answer) for answer in prompt.answers]
            assert_close(score.log_prob, [e[0] for e in expected], tolerance=2e-5)
            assert score.greedy.tolist() == [e[1] for e in expected]


def test_rows_have_a_length_that_the_mesh_divides(make_scorer, decoder, params):
    short = [(EncodedPrompt(np.arange(9, dtype=np.int32), (np.array([3, 4], np.int32),)),)]  # a row of 16 would do
    mesh = make_mesh(MeshConfig(data=1, context=3), jax.devices()[:3])
    spread = jax.device_put(nnx.state(decoder), NamedSharding(mesh, PartitionSpec()))
    ((expected,),) = make_scorer().score(params, short)
    ((found,),) = make_scorer(context=3).score((spread,), short)
    assert_close(found.log_prob, expected.log_prob, 2e-5)


def test_sharing_and_packing_change_nothing(make_scorer, params, groups, scores):
    alone = [(prompt,) for group in groups for prompt in group]
    flat = [score for group in scores for score in group]
    for (score,), expected in zip(make_scorer(rows=3).score(params, alone), flat, strict=True):
        assert_close(score.log_prob, expected.log_prob, tolerance=2e-5)


@pytest.mark.parametrize("sizes", [{"data": 4}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_the_mesh_changes_nothing(make_scorer, params, groups, scores, sizes):
    for group, expected in zip(make_scorer(rows=3, **sizes).score(params, groups), scores, strict=True):
        for a, b in zip(group, expected, strict=True):
            assert_close(a.log_prob, b.log_prob, tolerance=2e-5)


def test_instruction_before_the_input_scores_alike_whether_shared_or_not(task, encoder, make_scorer, params):
    before = PromptEncoder(encoder.tokenizer, task.text, place="before")
    asked = [ask(task.text, "iid", e, ("train",), 0) for e in task.splits["iid"].examples[:2]]
    together = list(encode(before, asked))
    shared = [s for group in make_scorer().score(params, together) for s in group]
    alone = make_scorer().score(params, [(prompt,) for group in together for prompt in group])
    for a, (b,) in zip(shared, alone, strict=True):
        assert_close(a.log_prob, b.log_prob, tolerance=2e-5)


def test_prompts_that_share_little_stand_in_rows_of_their_own(task, encoder, make_scorer, params, monkeypatch):
    example = task.splits["iid"].examples[0]
    asked = [ask(task.text, "iid", example, ("train", "heldout"), 0)]
    laid_out = []
    monkeypatch.setattr(
        scoring, "lay_out", lambda prompts, answers: laid_out.append(prompts) or lay_out(prompts, answers)
    )
    for place, items in (("after", 1), ("before", len(asked[0].instructions))):
        placed = PromptEncoder(encoder.tokenizer, task.text, place)
        (group,) = encode(placed, asked)
        laid_out.clear()
        ((*found,),) = make_scorer().score(params, [group])
        assert len(laid_out) == items
        assert len(found) == len(group)
        for prompt, score in zip(group, found):
            (((expected,),)) = make_scorer().score(params, [[prompt]])
            assert_close(score.log_prob, expected.log_prob, 2e-5)


def test_answers_of_several_tokens_are_summed(plain_log_prob, make_scorer, params):
    rng = np.random.default_rng(0)
    answers = tuple(rng.integers(2, 320, n).astype(np.int32) for n in (1, 4, 2))
    prompt = EncodedPrompt(rng.integers(2, 320, 17).astype(np.int32), answers)
    ((score,),) = make_scorer().score(params, [(prompt,)])
    expected = [plain_log_prob(prompt.prompt, answer)[0] for answer in answers]
    assert_close(score.log_prob, expected, tolerance=2e-5)


@pytest.fixture
def watched(decoder):
    """A scorer of one row whose forward pass notes the shape of each batch that it is compiled for."""
    shapes = []

    def forward(graphdef, params, batch):
        shapes.append(batch.tokens.shape)
        return plain_forward(graphdef, params, batch)

    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return Scorer(nnx.graphdef(decoder), mesh, 1, forward), shapes


def test_one_compile_serves_every_batch(watched, params, groups):
    scorer, shapes = watched
    assert len(list(scorer.score(params, groups))) == len(groups)
    list(scorer.score(params, groups))
    assert len(shapes) == 1


def test_rows_of_several_lengths_score_alike(watched, params, groups, scores, monkeypatch):
    monkeypatch.setattr(scoring, "WORTH", 0)
    monkeypatch.setattr(scoring, "TOGETHER", 2)
    short = [group[:n] for n, group in enumerate(groups, start=1)]
    scorer, shapes = watched
    for group, expected in zip(scorer.score(params, short), scores, strict=True):
        for a, b in zip(group, expected):
            assert_close(a.log_prob, b.log_prob, tolerance=2e-5)
    assert 1 < len(shapes) == len(set(shapes)) <= scoring.WIDTHS


def test_no_groups_no_scores(make_scorer, params):
    assert list(make_scorer().score(params, [])) == []
