"""A part of the campaign: bad inputs for every parser and command, always the same, and the cases that were kept."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from tests.processes import Ended

from . import damage, runs
from .__main__ import ACTS, draw
from .cases import Case, outcome
from .commands import COMMANDS

KEPT = sorted((Path(__file__).parent / "cases").glob("*.json"))
# Those that load JAX or parse much YAML are tried less often; `python -m tests.faults` tries all of them for longer.
SLOW = (*COMMANDS, "config file", "run folder", "description of data", "tokenizer")


@pytest.mark.parametrize("name", ACTS)
def test_bad_inputs_end_as_promised(name):
    for number in range(3 if name in SLOW else 12):
        case = draw(Random(f"{name} {number}"), name)
        found = outcome(case, ACTS[name])
        assert found.promised, f"{found.kind}: {found.line!a}, number {number}, {case.arguments!a}"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_failed_once_ends_as_promised(path):
    case = Case.from_json(path.read_text())
    found = outcome(case, ACTS[case.target])
    assert found.promised, f"{found.kind}: {found.line!a}"


def test_the_campaign_sees_what_fails():
    """Each kind of failure, made here, is told from what is promised."""

    def endless():
        while True:
            pass

    def fails():
        raise KeyError("x")

    kinds = [outcome(Case("none"), act).kind for act in (fails, lambda: [0] * (1 << 34))]
    assert kinds == ["KeyError", "MemoryError"]
    assert not outcome(Case("none"), endless, seconds=1).promised


def test_a_case_is_kept_and_read_back():
    case = Case("weights", {"a.bin": b"\xff\x00", "b": "@pipe"}, ("--x", "é\ud800"))
    assert Case.from_json(case.to_json()) == case
    with TemporaryDirectory() as folder:
        case.write(Path(folder))
        assert (Path(folder) / "a.bin").read_bytes() == b"\xff\x00"
        assert (Path(folder) / "b").is_fifo()


def test_the_campaign_sees_other_answers_and_advice_against_what_is_healthy(tmp_path, monkeypatch):
    """Whatever a command makes of damage, but the answers it gave before or one line that is right."""
    (tmp_path / "straight" / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/2/d/a", "checkpoints/4/d/a"):
        (tmp_path / "straight" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "straight" / name).write_bytes(b"long enough to be damaged")
    advice = "checkpoint /r/checkpoints/{} is damaged; or move that folder out of the run to go on"
    found = set()
    for end, answer in (
        (Ended(0, "", ""), "other"),
        (Ended(0, f"note: it {damage.UNCHECKED}", ""), "other"),
        (Ended(0, "", ""), "same"),
        (Ended(2, "one line", ""), None),
        (Ended(2, "two\nlines", ""), None),
        (Ended(1, "", ""), None),
        (Ended(2, advice.format(9), ""), None),
    ):
        healthy = damage.Healthy(tmp_path / "straight")
        monkeypatch.setattr(damage, "ACTS", {"steer": lambda run: (Ended(0, "", ""), {"answers": "same"})})
        assert healthy.answers == {"steer": {"answers": "same"}}
        act = lambda run, end=end, answer=answer: (end, {"answers": answer})  # noqa: E731
        monkeypatch.setattr(damage, "ACTS", {"steer": act})
        wrong = damage.damaged_run(Random(1), tmp_path, healthy)
        found.add((end.errors[:9], end.status, answer, bool(wrong)))
    assert found == {
        ("", 0, "other", True),
        ("note: it ", 0, "other", False),
        ("", 0, "same", False),
        ("one line", 2, None, False),
        ("two\nlines", 2, None, True),
        ("", 1, None, True),
        ("checkpoin", 2, None, True),
    }


@pytest.mark.slow
def test_kills_and_damage_change_nothing(tmp_path):
    for kind in runs.KINDS:
        wrong, _ = runs.killed_run(Random(f"kill {kind}"), tmp_path, runs.straight_run(tmp_path, kind))
        assert wrong == []
    healthy = damage.Healthy(tmp_path / "plain")
    for number in range(10):
        assert damage.damaged_run(Random(f"damage {number}"), tmp_path, healthy) == []
