"""Label-constrained scoring: log-probabilities of given answers, computed by one jitted function on the mesh."""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import lcm
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from fit_jax.data.layout import Item, lay_out
from fit_jax.data.packing import Batch, first_fit, stack, target_capacity
from fit_jax.focus.prompts import EncodedPrompt, common_prefix
from fit_jax.models.decoder import Decoder, Params
from fit_jax.models.head import target_log_probs
from fit_jax.parallel.config import CONTEXT
from fit_jax.parallel.processes import rows_of_this_process, to_global
from fit_jax.parallel.sharding import row_shards

IN_FLIGHT = 2  # batches the device may run ahead of the host
WINDOW = 2048  # items packed together; first fit takes time in items x rows
TOGETHER = 8  # batches whose rows are sorted by length
WIDTHS = 3  # sequence lengths
WORTH = 24  # batches for which more than one sequence length is worth compiling
STEP = 16  # of the lengths of rows
SAVED = 0.25  # share of the tokens of several prompts that sharing their beginning must save
SAMPLE = 512  # items from which the capacity for targets is chosen


class AnswerScores(NamedTuple):
    """How the model rates the answers of one prompt, in their order.

    Attributes:
        log_prob: log p(answer | prompt) in nats, summed over the answer's tokens, the end token included.
        greedy: Whether greedy decoding would give this answer.
    """

    log_prob: Float[np.ndarray, " answers"]
    greedy: Bool[np.ndarray, " answers"]


# What a `Forward` takes: the model's states, or these and an intervention.
ForwardParams = Params | tuple[Params, Any]
# (params, batch) -> per slot log p of its answer, and whether greedy decoding would give it.
Score = Callable[[ForwardParams, Batch], tuple[Float[Array, "B C"], Bool[Array, "B C"]]]
# (graphdef, params, batch) -> the decoder, its hidden states at the targets, and the batch as the decoder knows it.
Forward = Callable[[nnx.GraphDef, Any, Batch], tuple[Decoder, Float[Array, "B C D"], Batch]]


def plain_forward(graphdef: nnx.GraphDef, params: Params, batch: Batch) -> tuple[Decoder, Float[Array, "B C D"], Batch]:
    """The decoder's own forward pass, without dropout."""
    decoder = nnx.merge(graphdef, *params)
    return decoder, decoder(batch.tokens, batch.positions, batch.visible_until, batch.target_index), batch


class Scorer:
    """Scores the answers of prompts; prompts of one group share the computation of their common tokens.

    A group is laid out as one prefix tree (`fit_jax.data.layout`): the prefix its prompts share, a branch per prompt, a
    leaf per answer. Where its prompts share little, as under instructions before the text, each is a tree of its own:
    rows as long as all of them would take memory and gain nothing. Rows are packed with such items, and one compiled
    function scores every answer of a batch; it is compiled once for each sequence length: that of the longest item,
    rounded up, and where batches are many two shorter ones.

    Attributes:
        graphdef: The model's structure.
        plain: Whether the forward pass is the decoder's own.
        rows: Rows of a batch.
    """

    def __init__(
        self, graphdef: nnx.GraphDef, mesh: Mesh, rows: int, forward: Forward = plain_forward, step: int = STEP
    ) -> None:
        """A scorer of models of one structure.

        Args:
            graphdef: The model's structure.
            mesh: The mesh its parameters lie on.
            rows: Rows of a batch; rounded up to what the mesh divides.
            forward: How hidden states come about.
            step: Row lengths are multiples of it. A large one suits single questions: little is lost by padding one
                row, and a text of another length then rarely needs a program of its own.
        """
        parts = row_shards(mesh)
        self.graphdef = graphdef
        self.plain = forward is plain_forward
        self._mesh = mesh
        self.rows = -(-rows // parts) * parts
        self._step = lcm(step, mesh.shape[CONTEXT])  # of row lengths, which the mesh must divide
        self._score = jax.jit(_score_function(graphdef, forward), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def compile(self, params: ForwardParams, batch: Batch) -> jax.stages.Compiled:
        """Compiles the step that scores a batch, from arrays or `jax.ShapeDtypeStruct`s, without running it."""
        with jax.set_mesh(self._mesh):
            return self._score.lower(params, batch).compile()

    def score(self, params: ForwardParams, groups: Iterable[Sequence[EncodedPrompt]]) -> Iterator[list[AnswerScores]]:
        """Yields, for each group in the order given, the scores of each of its prompts' answers.

        Args:
            params: What `forward` takes; for a plain one the model's states, as `nnx.merge(graphdef, *params)` does.
            groups: Prompts that belong together: those of one example.
        """
        counts: list[list[list[int]]] = []  # by group and item, the answers of each prompt
        items = []
        for prompts in groups:
            parts = [prompts] if _worth_sharing(prompts) else [[prompt] for prompt in prompts]
            counts.append([[len(p.answers) for p in part] for part in parts])
            items += [lay_out(part, [range(n) for n in of_part]) for part, of_part in zip(parts, counts[-1])]
        found = self.score_items(params, items)
        for of_group in counts:
            yield [scores for of_item in of_group for scores in _split(next(found), of_item)]

    def score_items(self, params: ForwardParams, items: Sequence[Item]) -> Iterator[AnswerScores]:
        """Yields the scores of each item's answers, by their slots, in the order given; `params` as for `score`."""
        done: dict[int, AnswerScores] = {}
        following = 0
        for (log_prob, greedy), places in self._run(params, items):
            for number, row, first in places:
                slots = slice(first, first + items[number].slots)
                done[number] = AnswerScores(log_prob[row, slots], greedy[row, slots])
            while following in done:
                yield done.pop(following)
                following += 1

    def _run(self, params: ForwardParams, items: Sequence[Item]) -> Iterator[tuple[Any, np.ndarray]]:
        """Scores of the answers of each batch, and where each item stands; the device works ahead of the reader."""
        if not items:
            return
        T, C = row_shape(items, self._step)
        local = rows_of_this_process(self.rows, self._mesh)
        in_flight: deque[tuple[Any, np.ndarray]] = deque()
        batches = self._batches(items, T, C)
        while True:
            for batch, places in islice(batches, 1 + IN_FLIGHT - len(in_flight)):
                batch = to_global(Batch(*(a[local] for a in batch)), self._mesh)
                with jax.set_mesh(self._mesh):  # the model's activations are constrained to the mesh in context
                    scores = self._score(params, batch)
                in_flight.append((scores, places))
            if not in_flight:
                return
            scores, places = in_flight.popleft()
            yield jax.device_get(scores), places

    def _batches(self, items: Sequence[Item], T: int, C: int) -> Iterator[tuple[Batch, np.ndarray]]:
        """Batches of few widths, the last one ending in empty rows; and each item's number, row and first slot."""
        rows: list[list[int]] = []
        for start in range(0, len(items), WINDOW):
            rows += [[start + i for i in row] for row in first_fit(items[start : start + WINDOW], T, C)]
        lengths = [sum(len(items[number].tokens) for number in row) for row in rows]
        widths = _widths(lengths, T, self._step) if len(rows) > WORTH * self.rows else (T,)
        # Rows of similar length stand together, but not so many that the first answers come late.
        order: list[int] = []
        for start in range(0, len(rows), TOGETHER * self.rows):
            order += sorted(range(len(rows))[start : start + TOGETHER * self.rows], key=lengths.__getitem__)
        for start in range(0, len(rows), self.rows):
            chosen = order[start : start + self.rows]
            part = [rows[row] for row in chosen] + [[]] * (self.rows - len(chosen))
            numbers = np.array([number for row in part for number in row])
            width = widths[bisect_left(widths, max(lengths[row] for row in chosen))]
            batch, places = stack([[items[number] for number in row] for row in part], width, C)
            yield batch, np.column_stack([numbers, places])


def _widths(lengths: Sequence[int], T: int, step: int) -> tuple[int, ...]:
    """Widths into which about as many rows fall each, the last one T."""
    parts = np.quantile(lengths, np.arange(1, WIDTHS) / WIDTHS, method="higher")
    return tuple(sorted({*(_round_up(int(length), step) for length in parts), T}))


def row_shape(items: Sequence[Item], step: int) -> tuple[int, int]:
    """Tokens and targets of a row that holds any of the items and, with others beside it, is well filled."""
    T = _round_up(max(len(item.tokens) for item in items), step)
    C = max(target_capacity(items[:SAMPLE], T), max(len(item.target_ids) for item in items))
    return T, _round_up(C, max(8, step // 2))


def _round_up(size: int, step: int) -> int:
    """The next multiple of the step, or of a sixteenth of the size: few shapes, little padding."""
    while size > 16 * step:
        step *= 2
    return -(-size // step) * step


def _score_function(graphdef: nnx.GraphDef, forward: Forward) -> Score:
    def score(params: ForwardParams, batch: Batch) -> tuple[Float[Array, "B C"], Bool[Array, "B C"]]:
        decoder, hidden, batch = forward(graphdef, params, batch)
        log_prob, is_argmax = target_log_probs(decoder, hidden, batch.target_ids)
        used = batch.target_weight > 0
        slots = batch.target_slot.shape[1]
        by_slot = jax.vmap(lambda values, slot: jax.ops.segment_sum(values, slot, num_segments=slots))
        missed = by_slot(jnp.where(used & ~is_argmax, 1, 0), batch.target_slot)
        return by_slot(jnp.where(used, log_prob, 0.0), batch.target_slot), missed == 0

    return score


def _worth_sharing(prompts: Sequence[EncodedPrompt]) -> bool:
    """Whether sharing what all prompts begin with saves at least `SAVED` of their tokens."""
    shared = common_prefix([prompt.prompt for prompt in prompts])
    return len(prompts) == 1 or shared * (len(prompts) - 1) >= SAVED * sum(len(p.prompt) for p in prompts)


def _split(scores: AnswerScores, counts: Sequence[int]) -> list[AnswerScores]:
    """The scores of each prompt of an item, from those of all its answers."""
    ends = np.cumsum(counts)
    return [AnswerScores(scores.log_prob[e - n : e], scores.greedy[e - n : e]) for n, e in zip(counts, ends)]
