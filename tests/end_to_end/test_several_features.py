"""A run with two features of one's own data, as a user makes it: trained, evaluated again, and what is refused."""

import json
import random

import pytest
import yaml

from fit_jax import evaluate, train
from fit_jax.data.__main__ import main as data
from fit_jax.errors import InputError

from ..tickets import TICKETS

HELD_OUT = "focus(channel) & ignore(agent)"
SMALL = [
    *("--model.layers", "1", "--model.width", "32", "--model.feed_forward", "48", "--tokenizer.vocab_size", "400"),
    *("--train.steps", "4", "--train.batch_size", "8", "--train.sequence_length", "320", "--train.log_every", "2"),
    *("--evaluation.examples", "8", "--evaluation.paraphrases_each", "1", "--evaluation.splits", "[iid, high]"),
]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("own"), random.Random(0)
    rows = []
    for n in range(1200):
        urgent = rng.random() < 0.5
        channel, agent = (pair[urgent ^ (rng.random() < 0.6)] for pair in ("pf", "ab"))
        text = f"ticket {n} says {'down' if urgent else 'thanks'} by {channel} for {agent}"
        rows.append({"text": text, "urgent": int(urgent), "channel": channel, "agent": agent})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = ({"p": "yes", "f": "no"}, {"a": "yes", "b": "no"})
    features = [
        {"key": k, "name": f"the {k}", "column": k, "labels": of} for k, of in zip(("channel", "agent"), labels)
    ]
    (folder / "own.yaml").write_text(yaml.safe_dump({**TICKETS, "features": features}))
    return ["--task.name", "jsonl", "--task.file", str(folder / "own.yaml"), "--task.features", "[channel, agent]"]


@pytest.fixture(scope="module")
def run_dir(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "two"
    combining = ["--focus.combinations", "0.5", "--focus.held_out", f'["{HELD_OUT}"]']
    assert not train.main([*task, *SMALL, *combining, "--run_dir", str(folder)])
    return folder


def rows_of(folder):
    return [json.loads(line) for line in (folder / "combinations.jsonl").read_text().splitlines()]


def test_a_run_reports_combinations_seen_and_held_out(run_dir):
    rows = rows_of(run_dir / "report")
    training = {r["focus"]: r["training"] for r in rows}
    assert training == {
        HELD_OUT: "held out",
        "ignore(agent, channel)": "seen",
        "focus(core) & ignore(agent, channel)": "seen",
        "focus(agent) & ignore(channel)": "seen",
        "focus(channel) & ignore(core, agent)": "seen",
        "focus(agent) & ignore(core, channel)": "seen",
    }
    assert {(r["split"], r["paraphrases"], r["count"]) for r in rows} == {
        (split, paraphrases, 8) for split in ("iid", "high") for paraphrases in ("train", "heldout")
    }
    plain = [json.loads(line) for line in (run_dir / "report" / "focus_accuracy.jsonl").read_text().splitlines()]
    assert {r["feature"] for r in plain} == {"channel", "agent"}
    told = (run_dir / "report" / "summary.md").read_text()
    assert "Combinations of features" in told
    assert "Correlation of the features" in told


def test_evaluate_gives_the_same_rows_again_from_what_the_folder_keeps(run_dir):
    before = rows_of(run_dir / "report")
    assert not evaluate.main([str(run_dir)])
    assert rows_of(run_dir / "report") == before


def test_inspect_shows_the_correlation(task, capsys):
    data(["inspect", *task, "--prompts", "1", "--json"])
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert {*splits["train"]["correlation"]} == {
        "channel and agent",
        "channel and agent, given the label",
        "channel and the label",
        "agent and the label",
    }
    assert max(splits["train"]["correlation"].values()) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--focus.held_out", '["ignore(channel, desk)"]'], r"focus\.held_out: 'ignore\(channel, desk\)' is no"),
        (["--focus.held_out", '["focus channel"]'], r"focus\.held_out: .*'focus channel': cannot read"),
        (["--focus.combinations", "2"], r"focus\.combinations: 2\.0 is no share"),
        (["--task.features", "[channel]", "--focus.combinations", "0.5"], "has no two spurious features to combine"),
        (["--task.features", "[channel, desk]"], r"task\.features: task tickets has no feature 'desk'"),
    ],
)
def test_wrong_input_is_told_before_any_work(task, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train.main([*task, *SMALL, *options, "--run_dir", str(tmp_path / "run")])
    assert not list((tmp_path / "run").glob("checkpoints/*"))
