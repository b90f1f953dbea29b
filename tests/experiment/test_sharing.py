"""Several processes share the cells of an experiment, which here are done in no time: each once, a lost one again."""

import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path

from fit_jax.config import Config, TrainConfig
from fit_jax.evaluation.evaluator import Evaluation
from fit_jax.experiment.answers import answers_of
from fit_jax.experiment.cells import Cell
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.experiment.runner import cells_of, is_done, share

TRAIN = TrainConfig(steps=2, examples_per_step=8)


def work(folder: str, stuck: bool) -> None:
    """What a process does; the one that gets stuck never finishes its first cell."""
    parts = [
        ExperimentConfig(
            run_dir=f"{folder}/{name}", methods=("fit", "sft_y"), seeds=(0, 1, 2), shared=True, run=Config(train=TRAIN)
        )
        for name in ("narrow", "wide")
    ]

    def do(config: ExperimentConfig, cell: Cell) -> tuple[Evaluation, str]:
        with (Path(folder) / "begun").open("a") as log:
            log.write(f"{Path(config.run_dir).name} {cell.name} {os.getpid()}\n")
        time.sleep(1000 if stuck else 0.05)
        answers_of(config, cell).parent.mkdir(parents=True, exist_ok=True)
        return Evaluation([], []), ""

    share(parts, do)
    assert all(is_done(part, cell) for part in parts for cell in cells_of(part))


def test_each_cell_is_done_once_and_that_of_a_killed_process_again(tmp_path):
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload([__name__])
    lost, *others = [start.Process(target=work, args=(str(tmp_path), number == 0)) for number in range(4)]
    lost.start()
    begun = tmp_path / "begun"
    until = time.monotonic() + 300
    while not begun.exists() or not begun.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    for process in others:
        process.start()
    while len(begun.read_text().splitlines()) < 4:
        assert time.monotonic() < until
        time.sleep(0.05)
    lost.kill()
    for process in (lost, *others):
        process.join(60)
    assert [process.exitcode for process in others] == [0, 0, 0]
    rows = [line.rsplit(" ", 1) for line in begun.read_text().splitlines()]
    assert rows[0][1] == str(lost.pid)
    times = Counter(cell for cell, _ in rows)
    assert times.pop(rows[0][0]) == 2
    assert len(times) == 11
    assert set(times.values()) == {1}
