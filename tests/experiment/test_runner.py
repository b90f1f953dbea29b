"""An experiment of one method of each sort on a tiny run: cells are done once, what is wrong is said plainly."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import jax
import pytest

from fit_jax.config import (
    Config,
    EvaluationConfig,
    FocusConfig,
    MeshConfig,
    TaskConfig,
    TokenizerConfig,
    TrainConfig,
    load_config,
)
from fit_jax.config_files import dump_config, parse_config
from fit_jax.errors import InputError
from fit_jax.experiment import cells
from fit_jax.experiment.answers import answers_of
from fit_jax.experiment.cells import do_cell
from fit_jax.experiment.config import ExperimentConfig, check_experiment, parse_experiment, parts_of
from fit_jax.experiment.runner import Cell, run_experiment
from fit_jax.files import make_folder
from fit_jax.methods import training_free_method
from fit_jax.models.config import ModelConfig
from fit_jax.runs.run import load_model, open_run
from fit_jax.runs.run_folder import held

METHODS = ("few_shot", "fit", "group_dro", "activation_addition")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ExperimentConfig:
    run = Config(
        task=TaskConfig(train_examples=40, validation_examples=8, test_examples=6),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(layers=1, width=16, feed_forward=24, heads=2, kv_heads=1),
        mesh=MeshConfig(data=8),
        train=TrainConfig(steps=1, batch_size=8, sequence_length=320, validate_every=None, checkpoint_every=1),
        evaluation=EvaluationConfig(
            splits=("iid", "flipped"), paraphrases=("heldout",), paraphrases_each=1, batch_size=8
        ),
    )
    return ExperimentConfig(run_dir=str(tmp_path_factory.mktemp("experiment")), methods=METHODS, seeds=(0,), run=run)


@pytest.fixture(scope="module")
def report(config):
    left = Path(config.run_dir) / "cells" / "few_shot-seed0" / ".partial-1234.jsonl"  # by a process that was killed
    left.parent.mkdir(parents=True)
    left.touch()
    return run_experiment(config)


def test_every_method_is_in_the_report(report, config):
    rows = [json.loads(line) for line in (report / "focus_accuracy.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows} == set(METHODS)
    assert len(rows) == len(METHODS) * 2 * 6
    summary = (report / "summary.md").read_text()
    assert "on SFT(y)" in summary
    assert "of random weights" in summary
    assert (report / "index.html").exists()
    assert not list(Path(config.run_dir).rglob(".partial-*"))


def test_a_knob_is_tried_on_the_model_that_fit_trains(report, config, monkeypatch, tmp_path):
    """That model is there already, and is not trained again."""
    bases = []

    def apply(base, task, config, shots):
        bases.append(base)
        return base.plain(), "turned"

    monkeypatch.setattr(cells, "training_free_method", lambda name: training_free_method(name)._replace(apply=apply))
    folder = shutil.copytree(config.run_dir, tmp_path / "copy")
    run_experiment(replace(config, run_dir=str(folder), methods=(*METHODS, "knob")))
    assert (folder / "cells" / "knob-seed0" / "note.txt").read_text() == "on FIT; turned"
    trained = load_model(open_run(folder / "cells" / "fit-seed0"))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), bases[0].states, trained.params))


def test_finished_cells_are_not_done_again(report, config):
    before = (report / "summary.md").read_bytes()
    assert run_experiment(config, lambda *_: pytest.fail("a finished cell was done again")) == report
    assert (report / "summary.md").read_bytes() == before


def test_more_seeds_are_welcome_and_only_their_cells_are_done(report, config):
    done = []

    def stops(config: ExperimentConfig, cell: Cell) -> NoReturn:
        done.append(cell)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(replace(config, seeds=(0, 1)), stops)
    assert done == [Cell(METHODS[0], 1)]


def test_another_experiment_in_the_folder_is_refused(report, config):
    other = replace(config, run=replace(config.run, model=replace(config.run.model, width=32)))
    with pytest.raises(InputError, match=r"run\.model\.width: 16 -> 32"):
        run_experiment(other)
    with pytest.raises(InputError, match="shots: 4 -> 2"):
        run_experiment(replace(config, shots=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("fit", "fits")}, "no method 'fits'"),
        ({"methods": ("fit", "fit")}, "each once"),
        ({"seeds": ()}, "at least one"),
        ({"methods": ("sft_y",)}, "not among the methods"),
        ({"shots": 0}, "shots"),
        ({"run": Config(evaluation=EvaluationConfig(decoys=True))}, "decoys: an experiment does not report them"),
        (
            {"run": Config(focus=FocusConfig(combinations=0.5))},
            r"focus\.combinations: an experiment reports one feature",
        ),
        ({"run": Config(focus=FocusConfig(held_out=("ignore(a, b)",)))}, r"focus\.held_out: an experiment reports one"),
        ({"run": Config(focus=FocusConfig(turn_share=0.5))}, r"run\.focus\.turn_share: 0\.5, but sft_y trains without"),
        (
            {"variants": {"a": ("--evaluation.turns=true",)}, "varied": "turns"},
            r"evaluation\.turns: an experiment does not report them",
        ),
    ],
)
def test_wrong_lists_are_reported(change, message):
    with pytest.raises(InputError, match=message):
        check_experiment(ExperimentConfig(**change))


def test_an_experiment_of_methods_that_show_instructions_may_train_on_earlier_turns():
    run = Config(focus=FocusConfig(turn_share=0.5))
    check_experiment(ExperimentConfig(methods=("zero_shot", "fit"), run=run))


def test_the_command_line_reaches_the_run():
    found = parse_config(ExperimentConfig, ["--seeds", "[3]", "--run.train.steps", "7", "--methods", "[fit]"])
    assert (found.seeds, found.run.train.steps, found.methods) == ((3,), 7, ("fit",))


def test_a_shared_experiment_leaves_a_cell_that_is_taken_and_takes_it_when_it_is_free(report, config, tmp_path):
    copy = replace(config, run_dir=str(shutil.copytree(config.run_dir, tmp_path / "copy")), shared=True)
    again = [Cell(method, 0) for method in ("few_shot", "fit")]
    whole = {cell: answers_of(copy, cell).read_bytes() for cell in again}
    for cell in again:
        answers_of(copy, cell).unlink()
    taken = tmp_path / "copy" / "claims" / again[0].name
    make_folder(taken)
    done = []
    with ExitStack() as another:
        another.enter_context(held(taken))

        def do(config, cell):
            done.append(cell)
            another.close()
            return do_cell(config, cell)

        assert run_experiment(copy, do) == tmp_path / "copy" / "report"
    assert done == again[::-1]
    assert {cell: answers_of(copy, cell).read_bytes() for cell in again} == whole
    page = (tmp_path / "copy" / "report" / "index.html").stat().st_mtime_ns
    run_experiment(copy, lambda *_: pytest.fail("a finished cell was done again"))
    assert (tmp_path / "copy" / "report" / "index.html").stat().st_mtime_ns == page


def test_each_model_has_an_experiment_and_stands_beside_those_before(config, tmp_path):
    for name, width in (("narrow", 16), ("wide", 32)):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{width: {width}}}\n")
    both = replace(config, models=tuple(str(tmp_path / f"{name}.yaml") for name in ("narrow", "wide")))
    narrow, wide = parts_of(both)
    assert (narrow.run.model.width, wide.run.model.width) == (16, 32)
    assert narrow.run == config.run
    assert [part.run_dir for part in (narrow, wide)] == [f"{config.run_dir}/narrow", f"{config.run_dir}/wide"]
    assert wide.beside == (narrow.run_dir,)
    assert parts_of(config) == [config]
    for models, message in ((("a/x.yaml", "b/x.yaml"), "one name"), ((str(tmp_path / "none.yaml"),), "none.yaml")):
        with pytest.raises(InputError, match=message):
            parts_of(replace(config, models=models))


@pytest.mark.parametrize("task", ["ss", "smnli", "shans", "bbq", "bbq_nlg"])
def test_the_papers_grids_are_its_tasks_on_its_models(task):
    grid = parse_experiment(["--config", f"configs/experiments/paper/{task}.yaml"])
    check_experiment(grid)
    assert set(grid.methods) == {"zero_shot", "few_shot", "sft_y", "sft_y_focus", "fit", *["poe"] * (task == "bbq")}
    parts = parts_of(grid)
    assert [Path(part.run_dir).name for part in parts] == ["llama31_8b", "mistral_7b", "vicuna_13b"]
    for part in parts:
        name = Path(part.run_dir).name
        files = (f"configs/paper/tasks/{task}.yaml", f"configs/paper/models/{name}.yaml")
        alone = load_config([word for file in files for word in ("--config", file)])
        assert replace(part.run, run_dir=alone.run_dir) == alone


@pytest.mark.slow
def test_four_processes_share_an_experiment_and_one_of_them_is_killed(config, tmp_path):
    """What comes of it is what one process makes."""
    reports = {}
    for count in (1, 4):
        folder = tmp_path / str(count)
        settings = replace(config, run_dir=str(folder), seeds=(0, 1), shared=True)
        path = tmp_path / f"{count}.yaml"
        path.write_text(dump_config(settings))
        command = [sys.executable, "-m", "fit_jax.experiment", "--config", str(path)]
        running = [subprocess.Popen(command) for _ in range(count)]
        if count == 4:
            while not any(folder.glob("cells/*/checkpoints/*")):
                time.sleep(0.2)
            running[0].kill()
            running.pop(0).wait()
        assert [process.wait() for process in running] == [0] * len(running)
        reports[count] = {
            cell.parent.name: cell.read_bytes() for cell in sorted(folder.glob("cells/*/predictions.jsonl"))
        }
        assert (folder / "report" / "index.html").exists()
    assert reports[1] == reports[4]
    assert len(reports[4]) == len(METHODS) * 2
