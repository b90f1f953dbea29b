"""The training stream: step -> batch, a pure function of (data, config, step), whatever the number of hosts.

What a training method takes of its examples in an epoch (`fit_jax.data.sampler`) follows what it took in the one
before, in one endless stream, which is cut into *windows* of consecutive examples. Packed, a window is drawn, encoded,
laid out and packed as a whole, and gives some number of rows. The rows of successive windows form an endless stream
again, of which step s takes B rows. Unpacked, a window's examples are sorted by length before they are divided into
batches, and a batch is as wide as its longest row, rounded up to one of a few widths. Since all lengths decide who
stands beside whom, every host then encodes whole windows.

Where one step takes several packed windows, the rows of a batch are divided into *lanes*: lane l of n packs windows l,
l + n, l + 2n, ... and fills the l-th part of every batch, so that a host builds only the windows of its own rows. The
number of lanes follows from data and config, not from the hosts.

With `train.examples_per_step` N there are no windows: step s packs examples sN to (s + 1)N of the stream into its rows,
which are as long as it takes, in one of a few widths. Methods whose examples take different room then see the same
number of them in every step.

Rows of rehearsal (`fit_jax.data.rehearsal`), where a run has them, come with each batch.

Packed windows differ in their number of rows, so the window that a step begins in depends on all windows before it.
The loader remembers what it has counted: `state` goes into a checkpoint, and after `restore` resuming costs one window
a lane, not all of them. Without it the rows are counted again, with the same result.
"""

from bisect import bisect_left
from collections.abc import Generator, Sequence
from functools import lru_cache, partial
from typing import Any, Generic, NamedTuple, cast

import numpy as np

from fit_jax.config import Config
from fit_jax.data.item_stream import ItemStream
from fit_jax.data.keyed_generator import generator
from fit_jax.data.packing import Batch, first_fit, stack, target_capacity
from fit_jax.data.rehearsal import RehearsalRows, WithRehearsal
from fit_jax.data.row_stream import Mark, Row, RowStream
from fit_jax.data.sampler import BatchType, Sampler
from fit_jax.errors import InputError
from fit_jax.focus.prompts import PromptEncoder

# Examples from which the shapes are chosen.
_SAMPLE = 1024
# Widths of rows that do not pack.
_WIDTHS = 8
# Batches prepared ahead: enough to bridge the building of a window.
_PREFETCH = 16


class Window(NamedTuple):
    """The least size of the parts that the stream is packed or sorted in.

    Attributes:
        examples: Many, since the tokenizer works on many texts at once.
        rows: Of packed examples; many, since the last row of a window is half empty.
    """

    examples: int = 1024
    rows: int = 32


class TrainLoader(Generic[BatchType]):
    """Batches of what a method trains on.

    Attributes:
        tokens_per_row: T.
        targets_per_row: C; from the config, or the smallest number that hardly ever closes a row early.
        widths: The row lengths that batches have: T alone where rows are filled, else a few up to T.
        steps_per_epoch: Steps in which the stream passes an epoch; of filled rows an estimate from a sample, within
            about a percent.
    """

    def __init__(
        self,
        sampler: Sampler[BatchType],
        encoder: PromptEncoder,
        config: Config,
        token_shards: int = 1,
        window: Window = Window(),  # noqa: B008
        rehearsal: RehearsalRows | None = None,
    ) -> None:
        """Encodes a sample of the examples to choose the shapes.

        Args:
            sampler: What is taken of the training examples, and how a batch is completed.
            encoder: Turns examples into prompts.
            config: The run.
            token_shards: Parts into which the mesh divides a row's tokens.
            window: Batches depend on it, so that a run must be resumed with the same.
            rehearsal: Rows that each batch has besides: batches are then `WithRehearsal`.

        Raises:
            InputError: An example of the sample does not fit into a row, or the examples of a step into the rows of a
                batch, or an example cannot be drawn or encoded.
        """
        self._sampler = sampler
        self._items = ItemStream(sampler, encoder, config)
        self._rehearsal = rehearsal
        self._seed = config.seed
        self._batch_size = config.train.batch_size
        self._packing = config.train.packing
        self._taken = config.train.examples_per_step if config.train.packing else None
        self._epoch_size = sampler.epoch_size
        self.tokens_per_row = config.train.sequence_length

        drawn = min(_SAMPLE, self._epoch_size)
        sample = [d.item for d in self._items.take(0, drawn)]
        targets = self._items.targets_per_row
        if targets is None:
            # A row must hold the longest answer, whether or not it is in the sample; unpacked, one on every branch.
            longest = self._items.longest_answer()
            targets = (
                max(longest, target_capacity(sample, self.tokens_per_row))
                if self._packing
                else max(longest * sampler.branches, *(len(item.target_ids) for item in sample))
            )
        self.targets_per_row = self._items.targets_per_row = targets
        rows = len(first_fit(sample, self.tokens_per_row, self.targets_per_row)) if self._packing else drawn
        self.steps_per_epoch = self._epoch_size * rows / drawn / self._batch_size
        self._lanes: list[RowStream] = []
        self.widths: tuple[int, ...] = (self.tokens_per_row,)
        if not self._packing:
            self._buckets = lru_cache(2)(self._sorted_window)
            # No more than an epoch, or examples of one length would meet themselves in a batch.
            self._window_steps = max(min(window.examples, self._epoch_size) // self._batch_size, 1)
            self._window = self._window_steps * self._batch_size
            self.widths = _widths(self.tokens_per_row, token_shards)
        elif self._taken is not None:
            self._window = self._taken
            self.steps_per_epoch = self._epoch_size / self._taken
            self.widths = _widths(self.tokens_per_row, token_shards)
            for step in range(-(-drawn // self._taken)):  # what does not fit is to be reported now
                self._fitted(step)
        else:
            self._window = max(window.examples, window.rows * drawn // rows)
            lanes = _lanes(self._batch_size, self._window * rows / drawn)
            self._lanes = [RowStream(partial(self._packed, lane, lanes)) for lane in range(lanes)]

    def batch(self, step: int, rows: slice | None = None) -> BatchType:
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
            drawn = self._buckets(window)[number]
            width = self.widths[bisect_left(self.widths, max(len(d.item.tokens) for d in drawn))]
            taken = [[d] for d in drawn[start:stop]]
        elif self._taken is not None:
            width, fitted = self._fitted(step)
            taken = fitted[start:stop]
        else:
            taken: list[Row] = []
            height = self._batch_size // len(self._lanes)
            for number, lane in enumerate(self._lanes):
                low, high = max(start - number * height, 0), min(stop - number * height, height)
                taken += lane.rows(step * height + low, step * height + high)
        batch = self._stacked(taken, width)
        if self._rehearsal is None:
            return batch
        each = self._rehearsal.rows / self._batch_size  # a host holds the same share of both
        return self._beside(batch, self._rehearsal.batch(step, round(start * each), round(stop * each)))

    def empty(self, width: int) -> BatchType:
        """A batch of empty rows of `width` tokens: the shapes and dtypes of those to come."""
        batch = self._stacked([[]] * self._batch_size, width)
        return batch if self._rehearsal is None else self._beside(batch, self._rehearsal.empty())

    def iterate(self, start: int, stop: int, rows: slice | None = None) -> Generator[BatchType]:
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
        marks = [list(stream.mark(step * height)) for stream, height in self._streams()]
        return {"stream": self._identity(), "marks": marks}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up the state of a loader of the same data and config.

        Raises:
            InputError: The state is of another stream: the data have changed.
        """
        if {"rehearsed": 0} | state["stream"] != self._identity():  # versions without rehearsal did not say
            raise InputError(
                f"the checkpoint's data stream {state['stream']} is not this run's {self._identity()}: the training "
                "data or tokenizer have changed; start a new run folder"
            )
        for (stream, _), mark in zip(self._streams(), state["marks"], strict=True):
            stream.restore(Mark(*mark))

    def _streams(self) -> list[tuple[RowStream, int]]:
        """The streams that batches are cut from, and the rows that each gives to a step."""
        streams = [(lane, self._batch_size // len(self._lanes)) for lane in self._lanes]
        return streams if self._rehearsal is None else [*streams, (self._rehearsal.stream, self._rehearsal.rows)]

    def _identity(self) -> dict[str, int]:
        identity = {"examples": self._epoch_size, "targets_per_row": self.targets_per_row}
        rehearsed = 0 if self._rehearsal is None else len(self._rehearsal.texts)
        return identity | {"lanes": len(self._lanes), "window": self._window, "rehearsed": rehearsed}

    def _packed(self, lane: int, lanes: int, number: int) -> list[Row]:
        """Rows of a lane's `number`-th window, in random order: first fit leaves the worst filled ones last."""
        window = number * lanes + lane
        drawn = self._items.take(window * self._window, (window + 1) * self._window)
        rows = first_fit([d.item for d in drawn], self.tokens_per_row, self.targets_per_row)
        order = generator(self._seed, "rows", window).permutation(len(rows))
        return [[drawn[i] for i in rows[r]] for r in order]

    def _sorted_window(self, window: int) -> list[Row]:
        """A window's batches of items of similar length, in random order."""
        B, start = self._batch_size, window * self._window
        drawn = sorted(self._items.take(start, start + self._window), key=lambda d: len(d.item.tokens))
        order = generator(self._seed, "rows", window).permutation(self._window_steps)
        return [drawn[n * B : (n + 1) * B] for n in order]

    def _fitted(self, step: int) -> tuple[int, list[Row]]:
        """A step's examples in as many rows as a batch has, the last ones perhaps empty, of the least width that does.

        Raises:
            InputError: The examples do not fit.
        """
        assert self._taken is not None
        drawn = self._items.take(step * self._taken, (step + 1) * self._taken)
        items = [d.item for d in drawn]
        longest, B = max(len(item.tokens) for item in items), self._batch_size
        rows: list[list[int]] = []
        for width in self.widths[bisect_left(self.widths, max(longest, sum(len(i.tokens) for i in items) / B)) :]:
            rows = first_fit(items, width, self.targets_per_row)
            if len(rows) <= B:
                return width, [[drawn[i] for i in row] for row in rows] + [[] for _ in range(B - len(rows))]
        need = f"{len(rows)} rows" if rows else f"more than {B} rows"
        raise InputError(
            f"train.examples_per_step: {self._taken} examples need {need} of {self.tokens_per_row} tokens, a batch has "
            f"{B} (train.batch_size); ask for fewer examples, or for more rows or longer ones"
        )

    def _stacked(self, rows: Sequence[Row], width: int) -> BatchType:
        batch, places = stack([[d.item for d in row] for row in rows], width, self.targets_per_row)
        return self._sampler.batch(batch, places, np.array([d.example for row in rows for d in row], np.int64))

    @staticmethod
    def _beside(batch: BatchType, rehearsal: Batch) -> BatchType:
        return cast(BatchType, WithRehearsal(batch, rehearsal))  # a training batch as any other


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
