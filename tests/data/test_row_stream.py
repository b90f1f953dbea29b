"""The endless stream of rows that windows give."""

import threading

import numpy as np

from fit_jax.data.row_stream import Mark, RowStream


def test_row_stream_is_right_under_threads():
    sizes = np.random.default_rng(0).integers(1, 9, 50)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    stream = RowStream(lambda w: [[(w, r)] for r in range(sizes[w])])
    wanted = [[(w, r)] for w in range(50) for r in range(sizes[w])]
    results = {}

    def read(seed):
        rng = np.random.default_rng(seed)
        for start in rng.integers(0, 150, 30):
            results[seed, start] = stream.rows(start, start + 20)

    workers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) > 60
    assert all(rows == wanted[start : start + 20] for (_, start), rows in results.items())
    assert stream.mark(int(starts[12])) == Mark(12, starts[12])
    assert stream.rows(5, 5) == []
