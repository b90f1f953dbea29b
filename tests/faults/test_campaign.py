"""A part of the campaign: bad inputs for every parser and command, always the same, and the cases that were kept."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from . import runs
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


@pytest.mark.slow
def test_kills_and_damage_change_nothing(tmp_path):
    for kind in runs.KINDS:
        wrong, _ = runs.killed_run(Random(f"kill {kind}"), tmp_path, runs.straight_run(tmp_path, kind))
        assert wrong == []
        assert runs.damaged_run(Random(f"damage {kind}"), tmp_path, tmp_path / "plain") == []
