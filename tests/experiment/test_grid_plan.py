"""Hours and cost of an experiment, before it starts: of the cells that are left, by method and model, and in sum."""

from dataclasses import replace

import pytest
from rich.console import Console

from fit_jax.config import Config, EvaluationConfig, MeshConfig, TaskConfig, TrainConfig
from fit_jax.config_files import dump_config
from fit_jax.errors import InputError
from fit_jax.experiment.__main__ import main
from fit_jax.experiment.answers import answers_of
from fit_jax.experiment.cells import Cell
from fit_jax.experiment.config import ExperimentConfig, parts_of
from fit_jax.experiment.grid_plan import PlannedCells, fits, plan_grid, print_grid
from fit_jax.models.config import ModelConfig
from fit_jax.models.lora_config import LoraConfig
from fit_jax.planning.plan import outline


@pytest.fixture
def config(tmp_path) -> ExperimentConfig:
    """Two methods, one of which trains, on two models with three seeds; five epochs of 40 examples, 8 a step."""
    run = Config(
        task=TaskConfig(train_examples=40, validation_examples=8, test_examples=6),
        model=ModelConfig(layers=2, width=32, feed_forward=48, heads=2, kv_heads=1, vocab_size=96),
        lora=LoraConfig(rank=2),
        mesh=MeshConfig(data=8),
        train=TrainConfig(steps=None, epochs=5, batch_size=8, sequence_length=32, packing=False, validate_every=10),
        evaluation=EvaluationConfig(splits=("iid",), paraphrases=("heldout",), paraphrases_each=1, batch_size=8),
    )
    for name, width in (("narrow", 32), ("wide", 64)):
        (tmp_path / f"{name}.yaml").write_text(f"model: {{width: {width}}}\n")
    return ExperimentConfig(
        run_dir=str(tmp_path / "grid"),
        methods=("zero_shot", "fit"),
        seeds=(0, 1, 2),
        models=tuple(str(tmp_path / f"{name}.yaml") for name in ("narrow", "wide")),
        run=run,
    )


def test_hours_are_steps_and_questions_by_the_planner_of_the_cells_that_are_left(config, machine):
    wide = parts_of(config)[1]
    done = answers_of(wide, Cell("fit", 1))
    done.parent.mkdir(parents=True)
    done.touch()
    rows = plan_grid(config, machine)
    assert [(row.model, row.method) for row in rows] == [
        (f"2 layers, width {width}", method) for width in (32, 64) for method in config.methods
    ]
    assert [(row.left, row.done) for row in rows] == [(3, 0), (3, 0), (3, 0), (2, 1)]
    found = outline(wide.run, machine)
    validations = 3 * (-(-8 * 6 // 8))  # after 10, 20 and 25 steps, 6 focus types of each example
    assert rows[3].training == pytest.approx((5 * 40 / 8 * found.step + validations * found.evaluation) / 3600)
    assert rows[3].evaluation == pytest.approx(-(-6 * 6 // 8) * found.evaluation / 3600)  # 6 focus types of each
    assert rows[3].hours == pytest.approx(2 * (rows[3].training + rows[3].evaluation))
    assert rows[0].training == 0
    assert rows[2].evaluation == rows[3].evaluation > rows[0].evaluation > 0
    assert rows[3].training > rows[1].training > rows[1].evaluation


def test_the_table_tells_the_sum_and_what_does_not_fit(machine, capsys):
    rows = [
        PlannedCells(model, method, 3, 0, 0.5, 0.25, 1.0) for model in ("a", "b") for method in ("zero_shot", "fit")
    ]
    rows[3] = rows[3]._replace(bytes=2.0**40)
    print_grid(rows, machine, 1.5, Console(width=200))
    shown = capsys.readouterr().out
    assert shown.count("$27.00") == 4  # 3 cells of 0.75 hours on 8 chips
    assert "$108.00" in shown
    assert shown.count("does not fit") == 1
    assert [fits(row, machine) for row in rows] == [True, True, True, False]


def test_packed_rows_need_a_number_of_examples(config, machine):
    packed = replace(config, run=replace(config.run, train=replace(config.run.train, packing=True)))
    with pytest.raises(InputError, match=r"run\.train\.examples_per_step"):
        plan_grid(packed, machine)


def test_the_command_plans_and_starts_nothing(config, machine, tmp_path, capsys):
    path = tmp_path / "grid.yaml"
    path.write_text(dump_config(replace(config, models=())))
    assert main(["--config", str(path), "--plan", "v5e:2x4", "--price", "1.2"]) == 0
    assert "zero_shot" in capsys.readouterr().out
    assert not (tmp_path / "grid").exists()
    with pytest.raises(InputError, match="--price"):
        main(["--config", str(path), "--price", "1.2"])
