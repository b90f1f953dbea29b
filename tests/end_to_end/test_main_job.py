"""The commands as a user runs them: train, resume, evaluate, steer, and what wrong input is told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fit_jax import evaluate, steer, train
from fit_jax.errors import InputError
from fit_jax.focus.spec import FOCUS_TYPES

SMALL = [
    *("--task.train_examples", "120", "--task.validation_examples", "16", "--task.test_examples", "20"),
    *("--model.layers", "2", "--model.width", "32", "--model.feed_forward", "48", "--tokenizer.vocab_size", "400"),
    *("--train.steps", "6", "--train.batch_size", "8", "--train.sequence_length", "320", "--train.log_every", "2"),
    *("--train.validate_every", "3", "--train.checkpoint_every", "3"),
]
ROW = {
    *("method", "seed", "task", "split", "focus", "feature", "paraphrases"),
    *("count", "correct", "accuracy", "ci_low", "ci_high"),
}
METRIC = {"step", "loss", "tokens", "target_tokens", "examples", "tokens_per_second", "learning_rate"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert not train.main([*SMALL, "--run_dir", str(folder)])
    return folder


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_what_the_design_promises(run_dir):
    for name in ("config.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "MODEL_CARD.md"):
        assert (run_dir / name).exists(), name
    report = run_dir / "report"
    for name in ("focus_accuracy.jsonl", "summary.md", "radar.svg", "radar.png", "index.html"):
        assert (report / name).stat().st_size > 100, name
    metrics = rows(run_dir / "metrics.jsonl")
    assert [m["step"] for m in metrics if "loss" in m] == [2, 3, 4, 6]  # also where it validates
    assert all(set(m) >= METRIC for m in metrics if "loss" in m)


def test_every_cell_is_reported(run_dir):
    table = rows(run_dir / "report" / "focus_accuracy.jsonl")
    assert all(set(row) == ROW for row in table)
    cells = {(r["split"], r["focus"], r["paraphrases"]) for r in table}
    splits = ("iid", "high", "low", "flipped")
    assert cells == {(s, f, p) for s in splits for f in FOCUS_TYPES for p in ("train", "heldout")}
    assert all(r["ci_low"] <= r["accuracy"] <= r["ci_high"] for r in table)
    # Twenty examples, asked in two paraphrases each; there is one way to say nothing.
    assert all(r["count"] == (20 if r["focus"] == "none" else 40) for r in table)


def test_the_same_command_again_finds_nothing_to_do(run_dir, capsys):
    before = (run_dir / "metrics.jsonl").read_bytes()
    assert not train.main([*SMALL, "--run_dir", str(run_dir)])
    assert "finished" in capsys.readouterr().out
    assert (run_dir / "metrics.jsonl").read_bytes() == before


def test_another_config_in_the_folder_is_refused_by_field(run_dir):
    with pytest.raises(InputError, match=r"optimizer\.learning_rate"):
        train.main([*SMALL, "--run_dir", str(run_dir), "--optimizer.learning_rate", "0.5"])


def test_evaluate_gives_the_same_rows_again(run_dir, capsys):
    report = run_dir / "report" / "focus_accuracy.jsonl"
    before = rows(report)
    assert not evaluate.main([str(run_dir)])
    assert rows(report) == before
    assert "focus(core)" in capsys.readouterr().out


def test_evaluate_measures_perplexity_and_leaves_the_report(run_dir, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("I bought the lamp in spring, the handle is superb.\n" * 20)
    report = run_dir / "report" / "focus_accuracy.jsonl"
    before = report.read_bytes()
    assert not evaluate.main([str(run_dir), "--perplexity", str(text)])
    assert "perplexity per word" in capsys.readouterr().out
    place = run_dir / "evaluations" / "perplexity-text-txt"
    (found,) = json.loads((place / "perplexity.json").read_text())["models"].values()
    assert found["perplexity per token"] > 1
    assert report.read_bytes() == before
    with pytest.raises(InputError, match="name a text file"):
        evaluate.main([str(run_dir), "--perplexity", str(tmp_path / "absent.txt")])
    for measure in ("--inside", "--sensitivity"):
        with pytest.raises(InputError, match="no such test split"):
            evaluate.main([str(run_dir), measure, "nowhere"])
    with pytest.raises(InputError, match="no checkpoint of step 99"):
        evaluate.main([str(run_dir), "--inside", "iid", "--checkpoint", "99"])
    assert [kept.name for kept in place.parent.iterdir()] == [place.name]  # what was wrong got no folder


def test_evaluate_tells_whether_answers_lean_on_the_keyword(run_dir, capsys):
    asked = ["--sensitivity", "iid", "--evaluation.examples", "4", "--name", "leans"]
    assert not evaluate.main([str(run_dir), *asked])
    assert "Exchanging the keyword alone changes the answer in" in " ".join(capsys.readouterr().out.split())
    (found,) = json.loads((run_dir / "evaluations" / "leans" / "sensitivity.json").read_text())["models"].values()
    assert [row["focus"] for row in found["changes"]] == list(FOCUS_TYPES)
    assert {row["count"] for row in found["changes"]} == {4}
    assert found["decoys"]["count"] == 4


def test_steer_shows_answers_side_by_side(run_dir, capsys):
    assert not steer.main([str(run_dir), "--text", "I bought the lamp in spring, the Tundra handle is superb."])
    shown = capsys.readouterr().out
    assert "negative" in shown
    assert "positive" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task.name", "nothing"], "demo"),
        (["--task.name", "ss", "--task.data_dir", "absent"], "absent"),
        (["--task.train_examples", "0"], "train"),
        (["--task.rho_train", "1.5"], "rho"),
        (["--train.sequence_length", "16"], "sequence_length"),
        (["--train.batch_size", "3"], "batch_size"),
        (["--train.accumulate", "5"], "microbatch"),
        (["--train.steps", "0"], "steps"),
        (["--focus.weights", "{focus(colour): 1}"], "focus(colour)"),
        (["--focus.weights", "{none: -1}"], "none"),
        (["--focus.branches", "0"], "branches"),
        (["--tokenizer.path", "absent"], "absent"),
        (["--model.width", "33"], "heads"),
        (["--model.heads", "3"], "heads"),
        (["--mesh.data", "3"], "mesh"),
        (["--mesh.context", "8", "--train.sequence_length", "318"], "sequence_length"),
        (["--lora.rank", "2", "--lora.targets", "[qq_proj]"], "qq_proj"),
        (["--model.vocab_size", "7"], "vocab"),
        (["--evaluation.splits", "[sideways]"], "sideways"),
        (["--model.pretrained", "absent/folder"], "absent/folder"),
        (["--seed", "-1"], "seed"),
        (["--optimizer.learning_rate", "nan"], "optimizer.learning_rate"),
        (["--optimizer.warmup", "2"], "optimizer.warmup"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_wrong_input_is_told_before_anything_is_trained(arguments, said, tmp_path):
    with pytest.raises(InputError) as error:
        train.main([*SMALL, "--run_dir", str(tmp_path / "run"), *arguments])
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unwritable_run_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file"):
        train.main([*SMALL, "--run_dir", str(tmp_path / "file" / "run")])


@pytest.mark.parametrize("command", [evaluate.main, steer.main])
def test_a_folder_without_a_run_is_told(command, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path.name)):
        command([str(tmp_path)])


def test_the_program_ends_with_status_2_and_one_line():
    command = [sys.executable, "-m", "fit_jax.train", "--train.stepz", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300, check=False)
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines() == [
        "error: --train.stepz: there is no such option; did you mean '--train.steps'?"
    ]
    assert not ended.stdout
