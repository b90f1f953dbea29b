"""Training-free steering: contrastive activation addition, and attention steered towards the focus instruction.

Both intervene in the forward pass of a model that was not tuned on focus instructions. Their strength (and layer) is
chosen by focus accuracy on validation examples in training paraphrases, so they see as much as tuned models do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fit_jax.data.layout import lay_out
from fit_jax.data.packing import Batch, stack
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import Prompts, Subject, answer
from fit_jax.evaluation.metrics import kind_of
from fit_jax.evaluation.queries import Group, ask
from fit_jax.evaluation.scoring import Scorer
from fit_jax.focus.example import Example
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder
from fit_jax.methods.intervention import (
    AWAY,
    INSTRUCTION,
    TOWARDS,
    Intervention,
    intervened,
    intervened_forward,
    mark,
    no_intervention,
)
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.parallel.sharding import row_shards

STRENGTHS = (0.5, 1.0, 2.0, 4.0)  # multiples of the mean contrast
BIASES = tuple(log(factor) for factor in (2, 5, 20, 100))  # how much more an instruction token is attended to
CONTRASTS = 128  # training examples behind the vector
CHOICE = 64  # validation examples behind the choice of strength


@dataclass(frozen=True)
class Base:
    """The model to be steered.

    Attributes:
        graphdef: Its structure.
        states: Its parameters, as `nnx.merge(graphdef, *states)` takes them.
        mesh: Where they lie.
        encoder: Its prompt code.
        rows: Rows of a batch.
    """

    graphdef: nnx.GraphDef
    states: Any
    mesh: Mesh
    encoder: PromptEncoder
    rows: int


def activation_addition(base: Base, task: Task, seed: int) -> tuple[Subject, str]:
    """Contrastive activation addition (Rimsky et al., 2024).

    The vector of a layer is the mean difference of the residual stream at the last token of an answer, between the
    prompt answered with y_s and the same prompt answered with y, over training examples where they differ. It is added
    from the end of the prompt on where the instruction focuses on the spurious feature, and subtracted where it asks
    for the core feature.

    Returns:
        Who to evaluate, and the layer and strength that were chosen.
    """
    vectors = _contrasts(base, task)
    layers = sorted({round(share * (len(vectors) - 1)) for share in (0.25, 0.5, 0.75)})
    options = {}
    for layer in layers:
        for strength in STRENGTHS:
            chosen = jnp.zeros_like(vectors).at[layer].set(strength * vectors[layer])
            change = Intervention(chosen, jnp.zeros((), jnp.float32))
            options[f"layer {layer + 1} of {len(vectors)}, strength {strength:g}"] = change
    return _best(base, task, seed, options, _steered_answers)


def attention_steering(base: Base, task: Task, seed: int) -> tuple[Subject, str]:
    """Attention steered towards the focus instruction, in the way of PASTA (Zhang et al., 2024) and Spotlight.

    A bias is added to the attention scores of the instruction's tokens, in every layer and head.

    Returns:
        Who to evaluate, and the bias that was chosen.
    """
    nothing = _nothing(base)
    options = {
        f"instruction tokens weigh {np.exp(bias):.0f} times as much": nothing._replace(
            instruction_bias=jnp.float32(bias)
        )
        for bias in BIASES
    }
    return _best(base, task, seed, options, _InstructionMarks(base.encoder))


def _best(base: Base, task: Task, seed: int, options: dict[str, Intervention], prepare: Any) -> tuple[Subject, str]:
    """The intervention with the highest mean focus accuracy on validation examples; no intervention is an option."""
    scorer = Scorer(base.graphdef, base.mesh, base.rows, intervened_forward)
    examples = task.splits["validation"].examples[:CHOICE]
    groups = [ask(task.text, "validation", example, ("train",), seed) for example in examples]
    results = []
    for name, change in {"none": _nothing(base), **options}.items():
        subject = Subject(base.encoder, scorer, (base.states, change), prepare)
        right = [p.correct for answers in answer(groups, subject) for p in answers]
        results.append((float(np.mean(right)), name, subject))
    accuracy, name, subject = max(results, key=lambda result: result[0])
    return subject, f"{name} (validation focus accuracy {accuracy:.3f})"


def _nothing(base: Base) -> Intervention:
    config = nnx.merge(base.graphdef, *base.states).config
    return no_intervention(config.layers, config.width)


def _steered_answers(group: Group, prompts: Prompts) -> Prompts:
    """The last prompt token and the answers marked along or against the vector, by what the instruction asks."""
    kinds = {q.instruction: kind_of(q.focus) for q in group.queries}
    marked = []
    for words, prompt in zip(group.instructions, prompts):
        if words:
            way = TOWARDS if kinds[words] == "spurious" else AWAY
            end = mark(prompt.prompt[-1:], way)
            prompt = EncodedPrompt(
                np.concatenate([prompt.prompt[:-1], end]), tuple(mark(a, way) for a in prompt.answers)
            )
        marked.append(prompt)
    return tuple(marked)


class _InstructionMarks:
    """Marks the tokens in which a prompt differs from the same prompt without an instruction."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder

    def __call__(self, group: Group, prompts: Prompts) -> Prompts:
        (plain,) = self._encoder.encode([group.queries[0].example], [""])
        return tuple(self._marked(p, plain.prompt) for p in prompts)

    @staticmethod
    def _marked(prompt: EncodedPrompt, plain: np.ndarray) -> EncodedPrompt:
        tokens = prompt.prompt
        shorter = min(len(tokens), len(plain))
        start = _agreement(tokens[:shorter], plain[:shorter])
        stop = len(tokens) - min(_agreement(tokens[::-1][:shorter], plain[::-1][:shorter]), shorter - start)
        return replace(
            prompt, prompt=np.concatenate([tokens[:start], mark(tokens[start:stop], INSTRUCTION), tokens[stop:]])
        )


def _agreement(a: np.ndarray, b: np.ndarray) -> int:
    differs = a != b
    return int(differs.argmax()) if differs.any() else len(a)


def _contrasts(base: Base, task: Task) -> Float[Array, "L D"]:
    """Mean residual difference after each layer at the last answer token: answered with y_s minus answered with y."""
    pairs = list(_opposed(task.splits["train"].examples))[:CONTRASTS]
    if not pairs:
        raise InputError("activation addition needs training examples whose true and spurious labels differ; none does")
    prompts = base.encoder.encode([example for example, _ in pairs], [""] * len(pairs))
    items = [lay_out([p], [(spurious, e.label)]) for p, (e, spurious) in zip(prompts, pairs)]
    T, C = max(len(i.tokens) for i in items), max(len(i.target_ids) for i in items)
    rows = -(-base.rows // row_shards(base.mesh)) * row_shards(base.mesh)
    local = rows_of_this_process(rows, base.mesh)

    @jax.jit
    def contrast(states: Any, batch: Batch) -> Float[Array, "L D"]:
        decoder = nnx.merge(base.graphdef, *states)
        nothing = no_intervention(decoder.config.layers, decoder.config.width)
        _, residuals = intervened(decoder, batch, jnp.zeros_like(batch.tokens), nothing)
        return jnp.einsum("lbcd,bc->ld", residuals.astype(jnp.float32), batch.target_weight)

    total = jnp.zeros(())
    for start in range(0, len(items), rows):
        part = items[start : start + rows]
        batch, _ = stack([[item] for item in part] + [[]] * (rows - len(part)), T, C)
        signs = np.zeros((rows, C), np.float32)
        for row, item in enumerate(part):
            # The target that ends an answer is predicted from the answer's last token.
            spurious, core = (np.flatnonzero(item.target_slot == slot)[-1] for slot in (0, 1))
            signs[row, spurious], signs[row, core] = 1, -1
        batch = batch._replace(target_weight=signs)
        total = total + contrast(base.states, to_global(Batch(*(a[local] for a in batch)), base.mesh))
    return total / len(items)


def _opposed(examples: Sequence[Example]) -> Iterable[tuple[Example, int]]:
    """Examples with a spurious label that is not the true one, and that label."""
    for example in examples:
        labels = {s.label for s in example.spurious.values()} - {example.label}
        if labels:
            yield example, min(labels)
