"""The training stream: step -> batch, a pure function of (data, config, step), whatever the number of hosts.

The training examples form one endless stream, a fresh permutation each epoch, which is cut into *windows* of
consecutive examples. Packed, a window is drawn, encoded, laid out and packed as a whole, and gives some number of
rows. The rows of successive windows form an endless stream again, of which step s takes B rows. Unpacked, a window's
examples are sorted by length before they are divided into batches, and a batch is as wide as its longest row, rounded
up to one of a few widths. Since all lengths decide who stands beside whom, every host then encodes whole windows.

Where one step takes several packed windows, the rows of a batch are divided into *lanes*: lane l of n packs windows l,
l + n, l + 2n, ... and fills the l-th part of every batch, so that a host builds only the windows of its own rows. The
number of lanes follows from data and config, not from the hosts.

Packed windows differ in their number of rows, so the window that a step begins in depends on all windows before it.
The loader remembers what it has counted: `state` goes into a checkpoint, and after `restore` resuming costs one window
a lane, not all of them. Without it the rows are counted again, with the same result.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from fit_jax.config import Config
from fit_jax.data.focus_sampling import FocusSampler
from fit_jax.data.keyed_generator import generator
from fit_jax.data.layout import Item, lay_out
from fit_jax.data.packing import Batch, first_fit, stack, target_capacity
from fit_jax.data.row_stream import Mark, Row, RowStream
from fit_jax.data.task import Task
from fit_jax.errors import InputError
from fit_jax.focus.example import Example
from fit_jax.focus.prompts import EncodedPrompt, PromptEncoder

# A window has at least so many examples, since the tokenizer works on many texts at once, and so many rows, of which
# only the last is half empty.
_WINDOW_EXAMPLES = 1024
_WINDOW_ROWS = 32
# Examples from which the shapes are chosen, examples whose answers are looked at, and longest ones that are encoded.
_SAMPLE = 1024
# Widths of rows that do not pack.
_WIDTHS = 8
_ANSWERS_SEEN, _ANSWERS_ENCODED = 1 << 15, 64
# Batches prepared ahead: enough to bridge the building of a window.
_PREFETCH = 16


class TrainLoader:
    """Batches of the training split.

    Attributes:
        tokens_per_row: T.
        targets_per_row: C; from the config, or the smallest number that hardly ever closes a row early.
        widths: The row lengths that batches have: T alone where rows are packed, else a few up to T.
        steps_per_epoch: Steps in which the stream passes the training split once; of packed rows an estimate from a
            sample, within about a percent.
    """

    def __init__(self, task: Task, encoder: PromptEncoder, config: Config, token_shards: int = 1) -> None:
        """Encodes a sample of the split to choose the shapes.

        Args:
            task: Supplies the training split.
            encoder: Turns examples into prompts.
            config: The run.
            token_shards: Parts into which the mesh divides a row's tokens.

        Raises:
            InputError: The training split is empty, the focus weights are wrong, or an example of the sample does not
                fit into a row.
        """
        self._examples = task.splits["train"].examples
        count = len(self._examples)
        if not count:
            raise InputError(f"task {task.text.name}: the training split is empty; check the task's data and sizes")
        self._encoder = encoder
        self._seed = config.seed
        self._batch_size = config.train.batch_size
        self._packing = config.train.packing
        self._cuts = config.train.long_text == "cut"
        self._draws = FocusSampler(self._examples, task.text, config.focus, config.train.method, config.seed)
        self._order = lru_cache(2)(lambda epoch: generator(config.seed, "order", epoch).permutation(count))
        self.tokens_per_row = config.train.sequence_length
        self.targets_per_row = config.train.targets_per_row

        drawn = min(_SAMPLE, count)
        sample = self._items(0, drawn)
        if self.targets_per_row is None:
            # A row must hold the longest answer, whether or not it is in the sample; unpacked, one on every branch.
            longest = self._longest_answer()
            self.targets_per_row = (
                max(longest, target_capacity(sample, self.tokens_per_row))
                if self._packing
                else max(longest * self._draws.branches, *(len(item.target_ids) for item in sample))
            )
        rows = len(first_fit(sample, self.tokens_per_row, self.targets_per_row)) if self._packing else drawn
        self.steps_per_epoch = count * rows / drawn / self._batch_size
        self._lanes: list[RowStream] = []
        self.widths: tuple[int, ...] = (self.tokens_per_row,)
        if not self._packing:
            self._buckets = lru_cache(2)(self._sorted_window)
            # No more than an epoch, or examples of one length would meet themselves in a batch.
            self._window_steps = max(min(_WINDOW_EXAMPLES, count) // self._batch_size, 1)
            self._window = self._window_steps * self._batch_size
            self.widths = _widths(self.tokens_per_row, token_shards)
        else:
            self._window = max(_WINDOW_EXAMPLES, _WINDOW_ROWS * drawn // rows)
            lanes = _lanes(self._batch_size, self._window * rows / drawn)
            self._lanes = [RowStream(partial(self._packed, lane, lanes)) for lane in range(lanes)]

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of a step.

        Args:
            step: Counts from 0.
            rows: The rows wanted, those of this host; all by default.

        Raises:
            InputError: An example does not fit into a row, or cannot be drawn or encoded.
        """
        start, stop, _ = (rows or slice(None)).indices(self._batch_size)
        width = self.tokens_per_row
        if not self._packing:
            window, number = divmod(step, self._window_steps)
            items = self._buckets(window)[number]
            width = self.widths[bisect_left(self.widths, max(len(item.tokens) for item in items))]
            taken = [[item] for item in items[start:stop]]
        else:
            taken = []
            height = self._batch_size // len(self._lanes)
            for number, lane in enumerate(self._lanes):
                low, high = max(start - number * height, 0), min(stop - number * height, height)
                taken += lane.rows(step * height + low, step * height + high)
        return stack(taken, width, self.targets_per_row)[0]

    def iterate(self, start: int, stop: int, rows: slice | None = None) -> Iterator[Batch]:
        """The batches of steps `start` to `stop` (exclusive), prepared ahead by a Grain worker thread.

        An exception of `batch` surfaces here, at its step. Closing the iterator ends the thread.
        """
        import grain  # takes a second

        # One thread: a window is built once and then serves many steps, so more threads would only wait for it.
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCH)
        steps = grain.MapDataset.range(start, stop).map(lambda step: self.batch(int(step), rows))
        iterator = iter(steps.to_iter_dataset(options))
        try:
            yield from iterator
        finally:
            iterator.close()

    def state(self, step: int) -> dict[str, Any]:
        """What makes resuming at `step` cheap, as plain JSON.

        `marks` knows the lanes of this host's rows alone; the elementwise maximum over the hosts is the whole.
        """
        height = self._batch_size // max(len(self._lanes), 1)
        return {"stream": self._identity(), "marks": [list(lane.mark(step * height)) for lane in self._lanes]}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up the state of a loader of the same data and config.

        Raises:
            InputError: The state is of another stream: the data have changed.
        """
        if state["stream"] != self._identity():
            raise InputError(
                f"the checkpoint's data stream {state['stream']} is not this run's {self._identity()}: the training "
                "data or tokenizer have changed; start a new run folder"
            )
        for lane, mark in zip(self._lanes, state["marks"], strict=True):
            lane.restore(Mark(*mark))

    def _identity(self) -> dict[str, int]:
        identity = {"examples": len(self._examples), "targets_per_row": self.targets_per_row}
        return identity | {"lanes": len(self._lanes), "window": self._window}

    def _packed(self, lane: int, lanes: int, number: int) -> list[Row]:
        """Rows of a lane's `number`-th window, in random order: first fit leaves the worst filled ones last."""
        window = number * lanes + lane
        items = self._items(window * self._window, (window + 1) * self._window)
        rows = first_fit(items, self.tokens_per_row, self.targets_per_row)
        order = generator(self._seed, "rows", window).permutation(len(rows))
        return [[items[i] for i in rows[r]] for r in order]

    def _sorted_window(self, window: int) -> list[list[Item]]:
        """A window's batches of items of similar length, in random order."""
        B, start = self._batch_size, window * self._window
        items = sorted(self._items(start, start + self._window), key=lambda item: len(item.tokens))
        order = generator(self._seed, "rows", window).permutation(self._window_steps)
        return [items[n * B : (n + 1) * B] for n in order]

    def _items(self, start: int, stop: int) -> list[Item]:
        """Examples `start` to `stop` of the endless stream, drawn, encoded and laid out."""
        items = []
        while start < stop:
            epoch, offset = divmod(start, len(self._examples))
            indices = self._order(epoch)[offset : offset + stop - start]
            items += self._items_of(epoch, indices)
            start += len(indices)
        return items

    def _items_of(self, epoch: int, indices: np.ndarray) -> list[Item]:
        drawn = self._draws.draw(epoch, indices)
        k = self._draws.branches
        examples = [self._examples[i] for i in indices]
        prompts = self._encoder.encode(
            [example for example in examples for _ in range(k)], [d.instruction for draws in drawn for d in draws]
        )
        return [
            item
            for n, (example, draws) in enumerate(zip(examples, drawn))
            for item in self._laid_out(example, prompts[n * k : (n + 1) * k], [draw.label for draw in draws])
        ]

    def _laid_out(self, example: Example, prompts: Sequence[EncodedPrompt], labels: Sequence[int]) -> list[Item]:
        """The example's branches as one item; as several where rows are packed and do not hold them together.

        Raises:
            InputError: An item is larger than a row.
        """
        item = lay_out(prompts, [[label] for label in labels])
        tokens, targets = len(item.tokens), len(item.target_ids)
        token_room, target_room = self.tokens_per_row, self.targets_per_row or targets
        if tokens <= token_room and targets <= target_room:
            return [item]
        half = len(labels) // 2
        if half and self._packing:
            parts = slice(None, half), slice(half, None)
            return [item for part in parts for item in self._laid_out(example, prompts[part], labels[part])]
        if tokens > token_room:
            cut = "" if self._cuts else "set train.long_text to cut, "
            raise InputError(
                f"example {example.uid}: {tokens} tokens, a row holds {token_room}; raise train.sequence_length, "
                f"{cut}or lower focus.branches"
            )
        raise InputError(
            f"example {example.uid}: {targets} target tokens, a row holds {target_room}; set train.targets_per_row to "
            f"{targets} or more"
        )

    def _longest_answer(self) -> int:
        """Tokens of the longest answer: of those with the most characters among the first examples."""
        answer_sets: dict[tuple[str, ...], Example] = {}
        for i in range(min(_ANSWERS_SEEN, len(self._examples))):
            answer_sets.setdefault(self._examples[i].candidates, self._examples[i])
        longest = sorted(answer_sets, key=lambda answers: max(map(len, answers)), reverse=True)[:_ANSWERS_ENCODED]
        encoded = self._encoder.encode([answer_sets[answers] for answers in longest], [""] * len(longest))
        return max(len(answer) for prompt in encoded for answer in prompt.answers)


def _widths(longest: int, parts: int) -> tuple[int, ...]:
    """Row lengths up to the longest that divide into so many parts, as it does."""
    step = -(-longest // (_WIDTHS * parts)) * parts
    return (*range(step, longest, step), longest)


def _lanes(batch_size: int, window_rows: float) -> int:
    """The most lanes, a power of two that divides the batch, of which each takes a window or more at every step."""
    lanes = 1
    while batch_size % (2 * lanes) == 0 and batch_size >= 2 * lanes * window_rows:
        lanes *= 2
    return lanes
