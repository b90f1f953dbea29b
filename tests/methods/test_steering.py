"""Steering without training: which strength is chosen, which way a vector points, and which tokens it concerns."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import stack
from fit_jax.errors import InputError
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.queries import Group, ask, encode
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.focus.spec import FOCUS_TYPES
from fit_jax.methods import activation_addition, pasta, spotlight
from fit_jax.methods.intervention import AWAY, INSTRUCTION, TOWARDS, intervened, mark, unmarked
from fit_jax.methods.steering import best_intervention, following, nothing, opposed
from fit_jax.methods.training_free import Base
from fit_jax.models.decoder import Decoder
from fit_jax.models.linear_config import LinearConfig
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close


class Asked(NamedTuple):
    """What a method chooses by, what it wants to choose from, and how it prepares prompts."""

    groups: list
    options: dict
    prepare: object


@pytest.fixture(scope="module")
def model(decoder) -> Decoder:
    """A model of two layers whose predictions are far from uniform."""
    model = nnx.clone(decoder)
    model.embed.embedding[...] *= 40
    return model


@pytest.fixture(scope="module")
def base(model, encoder) -> Base:
    graphdef, state = nnx.split(model)
    return Base(graphdef, (state,), make_mesh(MeshConfig(), jax.devices()[:1]), encoder, rows=4)


@pytest.fixture
def asked_by(base, task, config, monkeypatch):
    """Runs a method up to the choice."""

    def run(module, base: Base = base) -> Asked:
        chosen = []
        monkeypatch.setattr(module, "best_intervention", lambda *given: chosen.append(Asked(*given[1:])) or (None, ""))
        module.METHOD.apply(base, task, config, 0)
        assert {g.queries[0].split for g in chosen[0].groups} == {"validation"}  # and no test example
        return chosen[0]

    return run


def group_of(task, encoder, number: int = 0) -> tuple[Group, tuple[EncodedPrompt, ...]]:
    """A test example under every focus type, and its prompts."""
    group = ask(task.text, "iid", task.splits["iid"].examples[number], ("train",), 0)
    return group, next(encode(encoder, [group]))


def marks_of(tokens: np.ndarray) -> list[int]:
    empty = stack([[]], len(tokens), 1)[0]
    return unmarked(empty._replace(tokens=tokens[None]))[1][0].tolist()


@pytest.fixture
def pushed(base, task, model, encoder):
    """Options that move every answer to its focus label or away from it, and how prompts are marked for them."""
    (prompt,) = encoder.encode([task.splits["validation"].examples[0]], [""])
    table = model.embed.embedding[...]
    way = sum(sign * table[ids].sum(axis=0) for ids, sign in zip(prompt.answers, (1, -1), strict=True))
    unchanged = nothing(base)
    options = {
        name: unchanged._replace(vectors=unchanged.vectors.at[1].set(way * sign))
        for name, sign in (("for", 100.0), ("against", -100.0))
    }

    def prepare(group, prompts):
        labels = {q.instruction: q.label for q in group.queries}
        kinds = [(TOWARDS, AWAY)[labels[instruction]] for instruction in group.instructions]
        return tuple(
            EncodedPrompt(
                np.concatenate([p.prompt[:-1], mark(p.prompt[-1:], kind)]), tuple(mark(a, kind) for a in p.answers)
            )
            for p, kind in zip(prompts, kinds, strict=True)
        )

    return Asked([], options, prepare)


@pytest.mark.parametrize("order", [("for", "against"), ("against", "for"), ("against",)])
def test_the_option_under_which_answers_follow_the_focus_is_chosen(base, task, pushed, order):
    """Also where the only option is worse than none."""
    groups = opposed(task, "validation", 0)
    subject, note = best_intervention(base, groups, {name: pushed.options[name] for name in order}, pushed.prepare)
    best = "for" if "for" in order else "against"
    assert note.startswith(f"{best} (follows the focus in {1.0 if best == 'for' else 0.0:.3f} of")
    np.testing.assert_array_equal(subject.params[1].vectors, pushed.options[best].vectors)
    assert subject.prepare is pushed.prepare


def test_only_questions_are_asked_whose_answer_the_focus_decides(task):
    groups = opposed(task, "validation", 0)
    assert [g.queries[0].example for g in groups] == [
        e for e in task.splits["validation"].examples if e.spurious["keyword"].label != e.label
    ]
    assert all({q.focus for q in g.queries} == set(FOCUS_TYPES) - {"none"} for g in groups)
    assert {q.paraphrases for g in groups for q in g.queries} == {"train"}  # as tuned models see no other
    agreeing = [e for e in task.splits["validation"].examples if e.spurious["keyword"].label == e.label]
    split = replace(task.splits["validation"], examples=agreeing)
    with pytest.raises(InputError, match=r"the validation split has none: set task\.rho_train below 1"):
        opposed(replace(task, splits={**task.splits, "validation": split}), "validation", 0)


def test_core_and_spurious_types_weigh_the_same(base, task):
    """Of five types with an instruction three are core: a model that always answers y has 0.6 of all, and 0.5 here."""
    unchanged = nothing(base)
    groups = opposed(task, "validation", 0)

    def always_true(group, prompts):
        """The true answer's first token against nine times another answer, which is never likelier."""
        label = group.queries[0].example.label
        return tuple(
            replace(p, answers=tuple(a[:1] if c == label else np.tile(a, 9) for c, a in enumerate(p.answers)))
            for p in prompts
        )

    assert following(base, groups, {"none": unchanged}, always_true) == {"none": 0.5}


def test_a_layers_vector_points_from_the_true_answer_to_the_spurious_one(base, task, model, asked_by):
    """Against one plain row an answer, under an instruction to focus on the spurious feature: the stream at its last
    token, answered with y_s less answered with y; each label is y_s as often."""
    options = asked_by(activation_addition).options
    graphdef, state = nnx.split(model)
    unchanged = nothing(base)
    asked = [q for g in opposed(task, "train", 0) for q in g.queries if kind_of(q.focus) == "spurious"]
    assert all(q.instruction and q.label != q.example.label for q in asked)
    fewest = min(sum(q.label == label for q in asked) for label in (0, 1))
    asked = [q for label in (0, 1) for q in [q for q in asked if q.label == label][:fewest]]
    prompts = base.encoder.encode([q.example for q in asked], [q.instruction for q in asked])
    rows, signs = [], []
    for query, prompt in zip(asked, prompts):
        for label, sign in ((query.label, 1), (query.example.label, -1)):
            rows.append([lay_out([prompt], [[label]])])
            signs.append(sign)
    batch, _ = stack(rows, max(len(row[0].tokens) for row in rows), max(len(row[0].target_ids) for row in rows))

    @jax.jit
    def residuals(batch):
        return intervened(nnx.merge(graphdef, state), batch, jnp.zeros_like(batch.tokens), unchanged)[1]

    last = [len(row[0].target_ids) - 1 for row in rows]  # its end token is predicted from the answer's last token
    found = np.asarray(residuals(batch))[:, np.arange(len(rows)), last]
    contrast = np.einsum("lbd,b->ld", found, signs) / len(asked)
    seen = set()
    for name, change in options.items():
        layer, strength = int(name.split()[1]), float(name.split()[-1])
        expected = np.zeros((2, 32))
        expected[layer - 1] = strength * contrast[layer - 1]
        assert_close(change.vectors, expected, 1e-4)
        assert change.head_bias is None
        seen.add((layer, strength))
    assert seen == {(layer, s) for layer in (1, 2) for s in activation_addition.STRENGTHS}


def test_contrast_pairs_take_every_spurious_label_equally_often(task):
    """Else the vector would tell the words of the commoner answer."""
    groups = opposed(task, "train", 0)
    few = [g for g in groups if g.queries[0].example.label == 0][:3]
    many = [g for g in groups if g.queries[0].example.label == 1]
    assert len(many) > len(few)
    pairs = activation_addition.contrast_pairs([*many, *few])
    asked = [[q for q in pairs if q.label == label] for label in (0, 1)]
    assert len(asked[0]) == len(asked[1]) == sum(kind_of(q.focus) == "spurious" for g in few for q in g.queries)


def test_answers_are_steered_along_the_vector_by_spurious_focus_and_against_it_by_core(task, encoder, asked_by):
    group, prompts = group_of(task, encoder)
    kinds = {q.instruction: kind_of(q.focus) for q in group.queries}
    seen = set()
    for instruction, plain, prompt in zip(
        group.instructions, prompts, asked_by(activation_addition).prepare(group, prompts), strict=True
    ):
        kind = {"spurious": TOWARDS}.get(kinds[instruction], AWAY) if instruction else 0
        assert marks_of(prompt.prompt) == [0] * (len(plain.prompt) - 1) + [kind]
        for answer in prompt.answers:
            assert marks_of(answer) == [kind] * len(answer)
        seen.add(kind)
    assert seen == {0, TOWARDS, AWAY}


@pytest.mark.parametrize("place", ["before", "after"])
def test_only_the_instructions_tokens_are_marked(base, task, asked_by, place):
    encoder = PromptEncoder(base.encoder.tokenizer, task.text, place)
    group, prompts = group_of(task, encoder)
    prepared = asked_by(spotlight, replace(base, encoder=encoder)).prepare(group, prompts)
    for instruction, plain, prompt in zip(group.instructions, prompts, prepared, strict=True):
        marks = np.array(marks_of(prompt.prompt))
        assert set(marks.tolist()) <= {0, INSTRUCTION}
        chosen = encoder.tokenizer.decode(plain.prompt[marks == INSTRUCTION].tolist())
        assert chosen.strip() == instruction
        for answer, before in zip(prompt.answers, plain.answers, strict=True):
            np.testing.assert_array_equal(answer, before)


def test_the_heads_that_follow_the_focus_best_alone_are_steered_first(base, task, asked_by, monkeypatch):
    """All other tokens weigh a hundredth in them; profiled on training examples, one head at a time."""
    order = [5, 2, 7, 0, 1, 3, 4, 6]  # heads of two layers of four, best first
    profiled = {}

    def profile(base, groups, options, prepare):
        profiled.update(options)
        assert {g.queries[0].split for g in groups} == {"train"}
        return {name: -float(order.index(int(name))) for name in options}

    monkeypatch.setattr(pasta, "following", profile)
    options = asked_by(pasta).options
    for head in range(8):
        assert_close(np.ravel(profiled[str(head)].head_bias), np.log(100) * (np.arange(8) == head), 1e-6)
    chosen = {name: sorted(np.flatnonzero(np.ravel(change.head_bias))) for name, change in options.items()}
    assert chosen == {f"{n} of 8 heads": sorted(order[:n]) for n in (1, 2, 4, 8)}


def test_layers_that_keep_a_state_have_no_heads_to_steer(base, asked_by, monkeypatch):
    def of(*layers):
        shape = replace(nnx.merge(base.graphdef, *base.states).config, linear=LinearConfig(layers=layers))
        graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Decoder(shape, rngs=nnx.Rngs(0))))
        return asked_by(pasta, replace(base, graphdef=graphdef, states=(shapes,))).options

    monkeypatch.setattr(pasta, "following", lambda base, groups, options, prepare: dict.fromkeys(options, 0.0))
    options = of(0)
    assert [*options] == [f"{n} of 4 heads" for n in (1, 2, 4)]
    assert not any(np.ravel(change.head_bias)[:4].any() for change in options.values())
    with pytest.raises(InputError, match="no layer of this model attends"):
        of(0, 1)


def test_spotlight_has_targets_to_choose_from(asked_by):
    shares = [float(change.target_share) for change in asked_by(spotlight).options.values()]
    assert_close(shares, spotlight.TARGETS, 1e-6)
