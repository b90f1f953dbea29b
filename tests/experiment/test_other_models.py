"""Experiments with other models: which may stand beside one, and the rows that their figures are made of."""

import json
from dataclasses import replace

import pytest

from fit_jax.config_files import dump_config
from fit_jax.errors import InputError
from fit_jax.experiment.config import ExperimentConfig
from fit_jax.experiment.method_tables import Context
from fit_jax.experiment.other_models import model_name, model_panels, models_beside, models_table

ROW = {"method": "fit", "seed": 0, "paraphrases": "heldout", "split": "iid", "focus": "focus(core)"}
ROWS = [
    {**ROW, "correct": 9, "count": 10},
    {**ROW, "seed": 1, "correct": 10, "count": 30},
    {**ROW, "paraphrases": "train", "correct": 40, "count": 40},
    {**ROW, "method": "sft_y", "correct": 0, "count": 20},
]


@pytest.fixture
def finished(tmp_path, config):
    """A finished experiment with a model of some layers; the config of one that it may stand beside."""

    def make(layers=6, task="demo", rows=ROWS):
        run = replace(config, model=replace(config.model, layers=layers), task=replace(config.task, name=task))
        folder = tmp_path / f"{layers}-{task}"
        (folder / "report").mkdir(parents=True)
        (folder / "experiment.yaml").write_text(dump_config(ExperimentConfig(run=run)))
        (folder / "report" / "focus_accuracy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(folder)

    return make


def test_rows_of_other_models_are_found_by_the_models_names(finished, config):
    found = models_beside(ExperimentConfig(run=config, beside=(finished(6), finished(8))))
    assert list(found) == [f"{layers} layers, width {config.model.width}" for layers in (6, 8)]
    assert all(rows == ROWS for rows in found.values())


def test_what_cannot_stand_beside_is_told(finished, config, tmp_path):
    one, own = finished(6), finished(config.model.layers)
    for beside, said in (
        ((one, one), "which is shown already; name each model once"),
        ((own,), "which is shown already; name each model once"),
        ((finished(7, task="ss"),), "is about task ss, this experiment about demo"),
        ((str(tmp_path),), "holds no finished experiment"),
        ((finished(9, rows=[{"method": "fit"}]),), "a row without 'paraphrases'"),
    ):
        with pytest.raises(InputError, match=said):
            models_beside(ExperimentConfig(run=config, beside=beside))
    assert model_name(replace(config, model=replace(config.model, pretrained="some/Base"))) == "Base"


def test_accuracies_are_over_all_answers_of_a_method_and_paraphrase_set():
    (panel, other), columns = model_panels({"small": ROWS}, "heldout", False)
    assert (columns, panel.lines, other.lines) == (2, {"iid": {"focus(core)": 19 / 40}}, {"iid": {"focus(core)": 0.0}})
    table = models_table({"small": ROWS}, "heldout", Context({}, {}, False))
    assert [row[1:] for row in table.rows] == [("FIT", "0.475", ""), ("SFT(y)", "0.000", "")]
