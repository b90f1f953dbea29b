"""A run of several tasks: trained, reported on task by task, opened without its data, and asked about one of them."""

import json
import shutil
from dataclasses import replace

import pytest
import yaml

import fit_jax
from fit_jax import evaluate, steer
from fit_jax.config import MIXTURE, Config, EvaluationConfig, PartConfig, TaskConfig
from fit_jax.convert import main as convert
from fit_jax.data.tasks import build_task
from fit_jax.errors import InputError
from fit_jax.evaluation.evaluator import evaluated_splits
from fit_jax.evaluation.queries import ask
from fit_jax.evaluation.report import read_predictions
from fit_jax.experiment.config import ExperimentConfig, check_experiment
from fit_jax.push import main as push
from fit_jax.runs.job import train_and_report
from fit_jax.runs.parts import one_task
from fit_jax.runs.run import open_run, set_up
from fit_jax.runs.run_folder import claimed, saved_config
from fit_jax.runs.trainer import Ending, train
from fit_jax.training.metrics import TIMING_FIELDS, read_metrics

from .reviews import DESCRIPTION, config_of_reviews, rows

SMALL = {"train_examples": 48, "validation_examples": 8, "test_examples": 8}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """The demo and reviews to train on; the same reviews under another name and instruction are held out."""
    folder = tmp_path_factory.mktemp("mixture")
    plain = config_of_reviews(folder)
    (folder / "later.yaml").write_text(
        DESCRIPTION.replace("name: reviews", "name: later").replace("Is the", "Say whether the", 1)
    )
    reviews = {"name": "jsonl", **SMALL}
    parts = (
        PartConfig(**SMALL),
        PartConfig(**reviews, file=str(folder / "own.yaml"), weight=2.0),
        PartConfig(**reviews, file=str(folder / "later.yaml"), weight=0.0),
    )
    return replace(
        plain,
        task=TaskConfig(name=MIXTURE, parts=parts),
        train=replace(plain.train, steps=4, checkpoint_every=2, log_every=1, batch_size=8, sequence_length=320),
        evaluation=EvaluationConfig(
            splits=("iid", "low"), paraphrases=("heldout",), paraphrases_each=1, validation_examples=8
        ),
    )


@pytest.fixture(scope="module")
def run(config):
    return train_and_report(config)


def test_each_task_is_asked_what_a_run_of_its_own_is_asked(run, config):
    assert list(run.task.parts) == ["demo", "reviews", "later"]
    for name, part in zip(run.task.parts, config.task.each):
        task = build_task(part, config.seed)
        predictions = read_predictions(run.folder / "report" / "tasks" / name / "predictions.jsonl")
        asked = [
            (q.split, q.example.uid, q.focus, q.paraphrase, q.label)
            for split in evaluated_splits(task, config)
            for e in task.splits[split].examples
            for q in ask(task.text, split, e, ("heldout",), config.seed).queries
        ]
        assert [(p.split, p.uid, p.focus, p.paraphrase, p.label) for p in predictions] == asked


def test_the_report_and_the_card_speak_of_every_task(run):
    rows_of = [json.loads(line) for line in (run.folder / "report" / "focus_accuracy.jsonl").read_text().splitlines()]
    assert {row["task"] for row in rows_of} == {"demo", "reviews", "later"}
    front, body = (run.folder / "MODEL_CARD.md").read_text().removeprefix("---\n").split("---\n", 1)
    assert [entry["name"] for entry in yaml.safe_load(front)["model-index"]] == ["demo", "reviews", "later"]
    for told in (
        "### Task later",
        "## Data of reviews",
        "- From: `rows.jsonl`",
        "never trained on: later",
        "Say whether",
    ):
        assert told in body
    kept = json.loads((run.folder / "inputs.json").read_text())["fingerprints"]
    assert kept["the examples of split train of task reviews"] in body


def test_a_run_is_evaluated_again_where_its_data_are_not(run, tmp_path, capsys):
    moved = tmp_path / "run"
    shutil.copytree(run.folder, moved)
    changed = (moved / "config.yaml").read_text().replace("own.yaml", "gone.yaml").replace("later.yaml", "gone.yaml")
    (moved / "config.yaml").write_text(changed)
    assert list(open_run(run.folder).task.parts) == list(run.task.parts)
    with pytest.raises(InputError, match=r"not what this run was made from: what config.yaml says"):
        open_run(moved)
    evaluate.main([str(run.folder), "--evaluation.splits", "[iid]", "--name", "again"])
    again = run.folder / "evaluations" / "again"
    assert {path.name for path in (again / "tasks").iterdir()} == set(run.task.parts)
    first = read_predictions(run.folder / "report" / "tasks" / "later" / "predictions.jsonl")
    second = read_predictions(again / "tasks" / "later" / "predictions.jsonl")
    assert [replace(p, log_probs=()) for p in second] == [replace(p, log_probs=()) for p in first if p.split == "iid"]
    shutil.rmtree(again / "tasks" / "later")
    (again / "tasks" / "later").write_text("")  # where the report of the last task has to be
    with pytest.raises(InputError, match="later"):
        evaluate.main([str(run.folder), "--evaluation.splits", "[iid]", "--name", "again"])
    assert not (again / "index.html").exists()  # reports of some tasks are new, of others gone
    with pytest.raises(InputError, match="task demo has no split 'natural'"):
        evaluate.main([str(run.folder), "--evaluation.splits", "[natural]"])


def test_a_part_whose_data_have_changed_is_told(run, config, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(run.folder.parent, folder)
    parts = tuple(
        replace(part, file=part.file and str(folder / part.file.rpartition("/")[2])) for part in config.task.parts
    )
    moved = replace(config, run_dir=str(folder / "fresh"), task=replace(config.task, parts=parts))
    with claimed(moved):
        set_up(moved, trains=True)
    (folder / "fresh" / "checkpoints" / "1").mkdir(parents=True)
    (folder / "rows.jsonl").write_text(rows(swapped=True))
    told = r"not what this run was made from: the files of own.yaml of task reviews, the files of later.yaml of task l"
    with claimed(moved), pytest.raises(InputError, match=told):
        set_up(moved, trains=True)


def test_code_that_a_part_names_is_refused(run, config, tmp_path):
    folder = run.folder.parent
    (tmp_path / "code.yaml").write_text(
        DESCRIPTION.replace("column: brand", "function: code.py:f").replace("rows.jsonl", f"{folder / 'rows.jsonl'}")
    )
    part = replace(config.task.parts[1], file=str(tmp_path / "code.yaml"))
    foreign = replace(
        config, run_dir=str(tmp_path / "run"), task=replace(config.task, parts=(config.task.parts[0], part))
    )
    (tmp_path / "run" / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "run" / "inputs.json").write_text('{"fingerprints": {}, "hub_revisions": {}}')
    with pytest.raises(InputError, match=r"runs Python code: 'code.py:f'; look at .*code.yaml.* --trust_code"):
        set_up(foreign)


def test_a_task_of_the_mixture_is_asked_by_its_name(run, capsys):
    steer.main([str(run.folder), "--part", "reviews", "--text", "review 3 is good", "--focus", "brand"])
    assert "p(positive)" in capsys.readouterr().out
    part = one_task(run, "reviews", "")
    example = part.task.splits["iid"].examples[0]
    typed = replace(example, part="")  # as one that a person types
    assert part.encoder.render(typed, "Look.") == run.encoder.render(example, "Look.")
    with pytest.raises(InputError, match=r"run of several tasks; name one with --part \(demo, reviews, later\)"):
        steer.main([str(run.folder), "--text", "a"])
    with pytest.raises(InputError, match="--part news: the run has no such task; it has demo, reviews, later"):
        steer.main([str(run.folder), "--part", "news", "--text", "a"])
    with pytest.raises(InputError, match="--part demo: the run is of one task, reviews; leave the option out"):
        one_task(one_task(run, "reviews", ""), "demo", "")


def test_what_knows_one_task_refuses_a_mixture(run, config):
    several = r"run of several tasks; "
    with pytest.raises(InputError, match=several + "ask them with python -m fit_jax.steer RUN --part NAME"):
        fit_jax.load(run.folder)
    with pytest.raises(InputError, match=r"tune: a mixture is asked with python -m fit_jax.steer RUN --part NAME"):
        fit_jax.tune(run.folder, run.folder / "config.yaml")  # before it is trained for hours
    with pytest.raises(InputError, match=several + "look inside the run of one"):
        evaluate.main([str(run.folder), "--inside", "iid"])
    assert not (run.folder / "evaluations" / "inside-iid").exists()
    with pytest.raises(InputError, match=r"run.task.name: an experiment is about one task; train a mixture with"):
        check_experiment(ExperimentConfig(run=config))


def test_a_mixture_is_not_pushed(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda api: {})
    with pytest.raises(InputError, match=r"run of several tasks; export it with python -m fit_jax.convert and push"):
        push([str(run.folder), "--to", "user/name"])


def test_an_export_says_how_each_task_is_asked(run, tmp_path):
    convert(["export-merged", "--from", str(run.folder), "--to", str(tmp_path / "hf")])
    assert {path.name for path in (tmp_path / "hf").glob("prompt*.py")} == {f"prompt_{n}.py" for n in run.task.parts}
    words: dict = {}
    exec((tmp_path / "hf" / "prompt_later.py").read_text(), words)
    example = run.task.parts["later"].splits["iid"].examples[0]
    assert words["build_prompt"]("Look.", **example.slots) == run.encoder.render(example, "Look.")


def test_a_finished_mixture_is_left_as_it_is(run, config, capsys):
    before = (run.folder / "report" / "index.html").stat().st_mtime_ns
    train_and_report(saved_config(run.folder))
    assert "this run is finished; nothing is left to train" in capsys.readouterr().out
    assert (run.folder / "report" / "index.html").stat().st_mtime_ns == before


def test_a_mixture_that_was_stopped_goes_on_bit_for_bit(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    for path in folder.glob("checkpoints/4*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    config = replace(run.config, run_dir=str(folder))
    with claimed(config):
        assert train(set_up(config, trains=True)) is Ending.ALL_STEPS
    straight, resumed = (
        [{name: value for name, value in record.items() if name not in TIMING_FIELDS} for record in read_metrics(path)]
        for path in (run.folder / "metrics.jsonl", folder / "metrics.jsonl")
    )
    assert len(straight) == 4
    assert resumed == straight
