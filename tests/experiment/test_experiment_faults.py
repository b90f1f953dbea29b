"""What goes wrong in an experiment: it goes on where it was killed, and says plainly what is broken and where."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from fit_jax.config import Config, EvaluationConfig, TaskConfig, TokenizerConfig, TrainConfig
from fit_jax.config_files import dump_config
from fit_jax.data.splits import Split
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError, RunFailed
from fit_jax.evaluation.evaluator import Evaluation, Subject, evaluate
from fit_jax.evaluation.queries import answered, ask
from fit_jax.evaluation.report import read_predictions
from fit_jax.experiment import cells as cell_module
from fit_jax.experiment import runner
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.experiment.other_models import models_beside
from fit_jax.experiment.runner import Cell
from fit_jax.files import make_folder
from fit_jax.models.config import ModelConfig
from fit_jax.runs.run import scorer, set_up, starting_state
from fit_jax.training.loop import TrainingFailed

from ..runs.reviews import config_of_reviews, rows

HOW = SimpleNamespace(do=cell_module.do_cell)  # how a cell is done; a test may exchange it


def run_it(config):
    return runner.run_experiment(config, lambda *given: HOW.do(*given))


@pytest.fixture
def config(tmp_path) -> ExperimentConfig:
    run = Config(
        task=TaskConfig(train_examples=40, validation_examples=8, test_examples=4),
        tokenizer=TokenizerConfig(vocab_size=300),
        model=ModelConfig(layers=2, width=16, feed_forward=24, heads=2, kv_heads=1),
        train=TrainConfig(examples_per_step=8),
        evaluation=EvaluationConfig(splits=("iid",), paraphrases=("heldout",), paraphrases_each=1, batch_size=8),
    )
    return ExperimentConfig(run_dir=str(tmp_path / "experiment"), methods=("fit", "sft_y"), seeds=(0, 1), run=run)


@pytest.fixture
def done(monkeypatch):
    """The cells that are done, in order; doing one takes no time and answers always right."""
    cells: list[Cell] = []

    def do(config, cell):
        cells.append(cell)
        run = set_up(cell_module.cell_config(config, cell))
        make_folder(run.folder)
        queries = [
            q
            for e in run.task.splits["iid"].examples
            for q in ask(run.task.text, "iid", e, ("heldout",), run.config.evaluation_seed).queries
        ]
        scores = ([-0.1 if i == q.label else -2.0 for i in range(2)] for q in queries)
        return Evaluation(queries, [answered(q, s) for q, s in zip(queries, scores)]), ""

    monkeypatch.setattr(HOW, "do", do)
    return cells


def test_with_other_data_no_further_cell_is_done(config, tmp_path, monkeypatch):
    reviews = config_of_reviews(tmp_path)
    run = replace(config.run, task=reviews.task, model=reviews.model, tokenizer=reviews.tokenizer, train=reviews.train)
    config = replace(
        config, run=replace(run, train=replace(run.train, examples_per_step=8), evaluation=reviews.evaluation)
    )
    done = []

    def do(config, cell):
        if done and not more:
            raise KeyboardInterrupt
        done.append(cell)
        make_folder(Path(config.run_dir) / "cells" / cell.name)
        set_up(cell_module.cell_config(config, cell), trains=True)
        return Evaluation([], []), ""

    more = False
    monkeypatch.setattr(HOW, "do", do)
    with pytest.raises(KeyboardInterrupt):
        run_it(config)
    (tmp_path / "rows.jsonl").write_text(rows(swapped=True))
    more = True
    with pytest.raises(
        InputError, match=r"fit-seed0: not what this run was made from: the files of own.yaml.* run_dir$"
    ):
        run_it(config)
    assert done == [Cell("fit", 0)]
    (tmp_path / "rows.jsonl").write_text(rows())
    with pytest.raises(InputError):  # there is nothing in the answers to report on
        run_it(config)
    assert len(done) == 4


def test_a_killed_experiment_goes_on_without_repeating_a_cell(config, done, monkeypatch, tmp_path):
    do = HOW.do
    stop = lambda config, cell: do(config, cell) if len(done) < 2 else (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    monkeypatch.setattr(HOW, "do", stop)
    with pytest.raises(KeyboardInterrupt):
        run_it(config)
    assert not (tmp_path / "experiment" / "report").exists()
    monkeypatch.setattr(HOW, "do", do)
    report = run_it(config)
    assert done == [Cell(method, seed) for seed in (0, 1) for method in ("fit", "sft_y")]
    assert (report / "index.html").exists()


def test_seeds_differ_in_training_alone_where_data_and_evaluation_have_their_own(config, done):
    def questions(config):
        """What each seed of FIT was asked, and the report."""
        summary = (run_it(config) / "summary.md").read_text()
        cells = (read_predictions(runner.answers_of(config, Cell("fit", seed))) for seed in (0, 1))
        return [[(p.uid, p.cluster, p.paraphrase) for p in cell] for cell in cells], summary

    (first, second), summary = questions(config)
    assert first != second
    assert "of each method and seed." in summary
    run = replace(config.run, task=replace(config.run.task, seed=5))
    held = replace(config, run_dir=f"{config.run_dir}-held", run=run)
    held = replace(held, run=replace(run, evaluation=replace(run.evaluation, seed=6)))
    (first, second), summary = questions(held)
    assert first == second
    assert "seed; the same data in all, those of seed 5; the same paraphrases asked in all, those of seed 6." in summary


def test_a_kill_while_a_cell_is_written_leaves_it_undone(config, done, monkeypatch):
    write = runner.write_predictions
    monkeypatch.setattr(runner, "write_predictions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_it(config)
    monkeypatch.setattr(runner, "write_predictions", write)
    run_it(config)
    assert len(done) == 5
    assert done[0] == done[1]


def test_damaged_predictions_are_told(config, done, tmp_path):
    run_it(config)
    path = tmp_path / "experiment" / "cells" / "fit-seed1" / "predictions.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for damaged in (
        whole[:-20],
        "",
        "".join(lines[:3]),
        "".join(lines).replace('"uid": "', '"uid": "x'),
        re.sub(r'"log_probs": \[[^,]*, ', '"log_probs": [', whole),
    ):
        path.write_text(damaged)
        with pytest.raises(InputError, match=r"fit-seed1.*move it away, and they are made again"):
            run_it(config)
    path.write_text(whole)
    path.with_name("note.txt").unlink()
    run_it(config)
    assert len(done) == 4


def test_damaged_counts_are_told_by_their_file_and_field(config, done, tmp_path):
    config = replace(config, run=replace(config.run, train=TrainConfig(steps=None)))
    run_it(config)
    experiment = tmp_path / "experiment"
    budget = experiment / "cells" / "fit-seed1" / cell_module.BUDGET
    spent = cell_module.Budget(2, 8, 0.2, 8, 1, "loss", {"share": 0.5}, 3)
    budget.write_text(json.dumps(spent._asdict()))
    assert cell_module.read_budget(budget) == spent
    for path, fields in ((budget, spent._asdict()), (experiment / runner.STEPS, {"steps": 1, "examples_per_step": 8})):
        for field in fields:
            path.write_text(json.dumps(fields | {field: ["x"]}))
            with pytest.raises(InputError, match=rf"{path.name}: {field} .*put it back from a copy, or"):
                run_it(config)
        path.write_text(json.dumps(fields))
    assert "step 1 evaluated, the best of 3 by validation loss" in (run_it(config) / "summary.md").read_text()
    budget.write_text(json.dumps({name: value for name, value in spent._asdict().items() if name != "validations"}))
    # as an earlier version wrote it
    assert "step 1 evaluated, the best by validation loss" in (run_it(config) / "summary.md").read_text()
    assert len(done) == 4


def test_the_checkpoint_of_two_stages_is_chosen_among_the_validations_of_the_second(config, tmp_path):
    """The budget is of both."""
    steps = {"first_stage": [(60, True), (90, True)], "": [(10, False), (20, True), (30, True)]}
    for stage, records in steps.items():
        lines = [{"step": n, "examples": 8, **({"validation_loss": 1.0} if is_in else {})} for n, is_in in records]
        make_folder(tmp_path / "cell" / stage)
        (tmp_path / "cell" / stage / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = build_task(config.run.task, 0)
    spent = cell_module.budget_spent(SimpleNamespace(folder=tmp_path / "cell", config=config.run, task=task), 20)
    assert (spent.updates, spent.answers, spent.evaluated_step, spent.validations) == (120, 40, 110, 2)


def test_an_experiment_that_never_began_binds_no_one(config, tmp_path, monkeypatch):
    """What it left is taken away; what is not its own stays."""
    foreign = tmp_path / "experiment" / "cells" / "microscope"
    foreign.mkdir(parents=True)

    def begins_and_fails(config, cell):
        set_up(cell_module.cell_config(config, cell), trains=True)
        raise InputError("wrong")

    with monkeypatch.context() as patch:
        patch.setattr(HOW, "do", begins_and_fails)
        with pytest.raises(InputError, match="wrong"):
            run_it(replace(config, run=replace(config.run, seed=7, tokenizer=TokenizerConfig(vocab_size=290))))
    left = tmp_path / "experiment" / "cells" / "fit-seed0" / "tokenizer"
    assert left.exists()
    monkeypatch.setattr(HOW, "do", lambda *_: (_ for _ in ()).throw(EOFError))
    with pytest.raises(EOFError):
        run_it(config)
    assert not left.exists()
    assert foreign.exists()


def test_damaged_rows_beside_are_told(config, tmp_path):
    path = tmp_path / "beside" / "report" / "focus_accuracy.jsonl"
    make_folder(path.parent)
    other = replace(config, run=replace(config.run, model=replace(config.run.model, layers=9)))
    (tmp_path / "beside" / "experiment.yaml").write_text(dump_config(other))
    config = replace(config, beside=(str(tmp_path / "beside"),))
    for content, problem in (('{"method": "fit"', "no JSON"), ("{}", "a row without"), ("[]", "no object")):
        path.write_text(content + "\n")
        with pytest.raises(InputError, match=rf"focus_accuracy.jsonl.*{problem}.*leave it out of `beside`"):
            models_beside(config)


def test_a_model_of_nans_is_told_with_its_cell(config, monkeypatch):
    def broken(config, cell):
        run = set_up(cell_module.cell_config(config, cell))
        placed = starting_state(run, None)
        params = jax.tree.map(lambda w: jnp.full_like(w, jnp.nan), placed.state.params)
        return evaluate(run.task, Subject(run.encoder, scorer(run, placed.graphdef), params), run.config), ""

    monkeypatch.setattr(HOW, "do", broken)
    with pytest.raises(InputError, match=r"fit, seed 0: the model's scores are not finite \(split iid"):
        run_it(config)


def test_a_training_that_diverges_is_told_with_its_cell(config):
    train = replace(config.run.train, steps=4, batch_size=8, sequence_length=256, validate_every=None)
    wild = replace(config.run.optimizer, learning_rate=1e30, warmup=0.0)
    run = replace(config.run, train=train, optimizer=wild)
    with pytest.raises(TrainingFailed, match=r"poe, seed 0: .*at step \d"):
        run_it(replace(config, run=run, methods=("poe", "fit"), seeds=(0,)))


@pytest.mark.parametrize("kind", [InputError, RunFailed, TrainingFailed])
def test_a_cell_that_fails_is_told_by_its_own_error_with_the_cell(kind, config, monkeypatch):
    error = kind("checkpoint 3 was not saved; start again")

    def fails(config, cell):
        raise error

    monkeypatch.setattr(HOW, "do", fails)
    with pytest.raises(kind, match=r"^fit, seed 0: checkpoint 3 was not saved; start again$") as told:
        run_it(config)
    assert told.value is error


def test_an_empty_split_is_told_before_training(config, monkeypatch):
    def emptied(*args, **more):
        run = set_up(*args, **more)
        return replace(run, task=replace(run.task, splits={**run.task.splits, "iid": Split("iid", (), {})}))

    monkeypatch.setattr(cell_module, "set_up", emptied)
    monkeypatch.setattr("fit_jax.runs.trainer.compile_train_step", lambda *_: pytest.fail("trained for nothing"))
    with pytest.raises(InputError, match="fit, seed 0: split 'iid' of task demo holds no example"):
        run_it(replace(config, run=replace(config.run, train=TrainConfig(batch_size=8))))


@pytest.mark.parametrize(("free", "written"), [(True, None), (False, True)])
def test_a_steered_method_that_is_to_write_is_refused_before_any_cell(free, written, config, done, monkeypatch):
    def build(task, seed):
        built = build_task(task, seed)
        return replace(built, text=replace(built.text, free=free))

    monkeypatch.setattr(runner, "build_task", build)
    run = replace(config.run, evaluation=replace(config.run.evaluation, written=written))
    asked = replace(config, run=run, methods=("fit", "pasta"), seeds=(0,))
    with pytest.raises(InputError, match=r"pasta .* task demo .* set run\.evaluation\.written to false"):
        run_it(asked)
    assert done == []
    if free:
        run_it(replace(asked, run=replace(run, evaluation=replace(run.evaluation, written=False))))
        assert len(done) == 2


def test_a_steered_method_that_is_to_search_is_refused_before_any_cell(config, done):
    run = replace(config.run, evaluation=replace(config.run.evaluation, beams=4))
    with pytest.raises(InputError, match=r"pasta can only be scored; .* run\.evaluation\.beams to null"):
        run_it(replace(config, run=run, methods=("fit", "pasta"), seeds=(0,)))
    assert done == []


def test_a_missing_pretrained_model_is_told(config, tmp_path):
    model = replace(config.run.model, pretrained=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"fit, seed 0: .*nowhere"):
        run_it(replace(config, run=replace(config.run, model=model)))


def test_experiments_beside_are_shown_and_checked(config, done, tmp_path):
    run_it(config)
    wide = replace(config.run, model=replace(config.run.model, width=32))
    other = replace(config, run_dir=str(tmp_path / "other"), run=wide, beside=(config.run_dir,))
    report = run_it(other)
    assert (report / "radar_models.svg").exists()
    table = list(csv.DictReader((report / "tables" / "models_heldout.csv").read_text().splitlines()))
    models = [row["model"] for row in table]
    assert models[:4] == ["2 layers, width 32"] * 2 + ["2 layers, width 16"] * 2
    assert "an answer at random" in models[4:]
    about_ss = {"run": replace(wide, task=replace(wide.task, name="ss")), "run_dir": str(tmp_path / "ss")}
    for changed, message in (
        ({"beside": (str(tmp_path / "none"),)}, "no finished experiment"),
        ({"beside": (config.run_dir,) * 2}, "name each model once"),
        (about_ss, "about task demo"),
    ):
        with pytest.raises(InputError, match=message):
            run_it(replace(other, **changed))
