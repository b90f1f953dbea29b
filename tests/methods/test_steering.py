"""Steering without training: which strength is chosen, which way a vector points, and which tokens it concerns."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, stack
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.queries import Group, ask, encode
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.methods import activation_addition, attention_steering
from fit_jax.methods.intervention import AWAY, INSTRUCTION, TOWARDS, intervened, mark, no_intervention, unmarked
from fit_jax.methods.steering import best_intervention
from fit_jax.methods.training_free import Base
from fit_jax.models.decoder import Decoder
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close


class Asked(NamedTuple):
    """What a method wants to choose from, and how it prepares prompts."""

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
        monkeypatch.setattr(module, "best_intervention", lambda *given: chosen.append(Asked(*given[3:])) or (None, ""))
        module.METHOD.apply(base, task, config, 0)
        return chosen[0]

    return run


def group_of(task, encoder, number: int = 0) -> tuple[Group, tuple[EncodedPrompt, ...]]:
    """A test example under every focus type, and its prompts."""
    group = ask(task.text, "iid", task.splits["iid"].examples[number], ("train",), 0)
    return group, next(encode(encoder, [group]))


def marks_of(tokens: np.ndarray) -> list[int]:
    empty = stack([[]], len(tokens), 1)[0]
    return unmarked(empty._replace(tokens=tokens[None]))[1][0].tolist()


@pytest.mark.parametrize("order", [("for", "against"), ("against", "for"), ("against",)])
def test_the_strength_that_validates_best_is_chosen(base, task, model, encoder, order):
    """A vector that moves every answer to its focus label, its opposite, and no intervention."""
    first = task.splits["validation"].examples[0]
    (prompt,) = encoder.encode([first], [""])
    table = model.embed.embedding[...]
    way = sum(sign * table[ids].sum(axis=0) for ids, sign in zip(prompt.answers, (1, -1), strict=True))
    nothing = no_intervention(2, 32)
    both = {
        name: nothing._replace(vectors=nothing.vectors.at[1].set(way * sign))
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

    subject, note = best_intervention(base, task, 0, {name: both[name] for name in order}, prepare)
    if "for" in order:
        assert note == "for (validation focus accuracy 1.000)"
        np.testing.assert_array_equal(subject.params[1].vectors, both["for"].vectors)
    else:
        assert note.startswith("none (validation focus accuracy 0.")
    assert subject.prepare is prepare


def test_a_layers_vector_points_from_the_true_answer_to_the_spurious_one(base, task, model, asked_by):
    """Against one plain row an answer: the stream at its last token, answered with y_s less answered with y."""
    options = asked_by(activation_addition).options
    graphdef, state = nnx.split(model)
    nothing = no_intervention(2, 32)
    opposed = [e for e in task.splits["train"].examples if e.spurious["keyword"].label != e.label]
    prompts = base.encoder.encode(opposed, [""] * len(opposed))
    rows, signs = [], []
    for example, prompt in zip(opposed, prompts):
        for label, sign in ((example.spurious["keyword"].label, 1), (example.label, -1)):
            rows.append([lay_out([prompt], [[label]])])
            signs.append(sign)
    batch, _ = stack(rows, max(len(row[0].tokens) for row in rows), max(len(row[0].target_ids) for row in rows))

    @jax.jit
    def residuals(batch):
        return intervened(nnx.merge(graphdef, state), batch, jnp.zeros_like(batch.tokens), nothing)[1]

    last = [len(row[0].target_ids) - 1 for row in rows]  # its end token is predicted from the answer's last token
    found = np.asarray(residuals(batch))[:, np.arange(len(rows)), last]
    contrast = np.einsum("lbd,b->ld", found, signs) / len(opposed)
    seen = set()
    for name, change in options.items():
        layer, strength = int(name.split()[1]), float(name.split()[-1])
        expected = np.zeros((2, 32))
        expected[layer - 1] = strength * contrast[layer - 1]
        assert_close(change.vectors, expected, 1e-4)
        assert not change.instruction_bias
        seen.add((layer, strength))
    assert seen == {(layer, s) for layer in (1, 2) for s in activation_addition.STRENGTHS}


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
    prepared = asked_by(attention_steering, replace(base, encoder=encoder)).prepare(group, prompts)
    for instruction, plain, prompt in zip(group.instructions, prompts, prepared, strict=True):
        marks = np.array(marks_of(prompt.prompt))
        assert set(marks.tolist()) <= {0, INSTRUCTION}
        chosen = encoder.tokenizer.decode(plain.prompt[marks == INSTRUCTION].tolist())
        assert chosen.strip() == instruction
        for answer, before in zip(prompt.answers, plain.answers, strict=True):
            np.testing.assert_array_equal(answer, before)


def test_a_stronger_bias_moves_what_comes_after_the_instruction_alone(base, task, encoder, model, asked_by):
    asked = asked_by(attention_steering)
    group, prompts = group_of(task, encoder)
    instruction = max(group.instructions, key=len)
    number = group.instructions.index(instruction)
    tokens = asked.prepare(group, prompts)[number].prompt
    (where,) = np.nonzero(marks_of(tokens))
    n = len(tokens)
    plain, marks = unmarked(
        Batch(
            *(np.array(a, np.int32)[None] for a in (tokens, range(n), [n] * n, [where[0] - 1, n - 1], [0, 0], [0, 0])),
            np.ones((1, 2), np.float32),
        )
    )
    graphdef, state = nnx.split(model)
    run = jax.jit(lambda change: intervened(nnx.merge(graphdef, state), plain, marks, change)[0][0])
    without = np.asarray(run(no_intervention(2, 32)))
    biases = [float(change.instruction_bias) for change in asked.options.values()]
    assert_close(biases, np.log([2, 5, 20, 100]), 1e-6)
    moved = []
    for change in asked.options.values():
        assert not np.any(change.vectors)
        before, after = np.abs(np.asarray(run(change)) - without).max(axis=1)
        assert before == 0
        moved.append(after)
    assert min(moved) > 0
