"""`python -m fit_jax.plan`: options, statuses and what is written."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fit_jax.config import load_config
from fit_jax.errors import InputError
from fit_jax.plan import main
from fit_jax.planning.compiled import Program

TINY = [
    *("--model.layers", "2", "--model.width", "32", "--model.feed_forward", "48", "--model.vocab_size", "96"),
    *("--train.sequence_length", "32", "--train.targets_per_row", "4", "--train.batch_size", "8"),
    *("--evaluation.batch_size", "8", "--lora.rank", "2", "--train.steps", "100"),
]


def test_the_search_writes_the_config_it_found(machine, tmp_path, monkeypatch, capsys):
    for name in ("compile_train", "compile_evaluation"):
        monkeypatch.setattr(f"fit_jax.planning.plan.{name}", lambda load, topology: Program(1.0, 2.0**20, 0.0, ()))
    out = tmp_path / "fast.yaml"
    assert main(["--topology", "v5e:2x4", "--search", "--write", str(out), "--json", "--price", "1.2", *TINY]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fits"]
    assert facts["dollars"] == pytest.approx(1.2 * 8 * facts["hours"])
    again = load_config(["--config", str(out)])
    assert {axis: getattr(again.mesh, axis) for axis in facts["mesh"]} == facts["mesh"]
    assert (again.train.accumulate, again.model.remat) == (facts["accumulate"], facts["remat"])
    with pytest.raises(InputError, match="nothing is overwritten"):
        main(["--topology", "v5e:2x4", "--write", str(out), *TINY])


def test_the_status_is_1_where_it_does_not_fit(machine, monkeypatch, capsys):
    monkeypatch.setattr("fit_jax.planning.plan.make_plan", lambda config, topology: SimpleNamespace(fits=False))
    monkeypatch.setattr("fit_jax.planning.plan_report.print_plan", lambda plan, price: print("shown", price))
    assert main(["--topology", "v5e:2x4", "--price", "2", *TINY]) == 1
    assert capsys.readouterr().out == "shown 2.0\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required: --topology"),
        (["--topology"], "--topology: expected one argument"),
        (["--topology", "v5e:2x4", "--slices", "two"], "--slices: invalid int value: 'two'"),
        (["--topology", "moon:1"], "unknown device kind"),
        (["--topology", "m" * 1000], f"--topology {'m' * 60}...: unknown device kind; known: v4"),
        (["--topology", "v5e:2x4", "--train.batch_size", "9"], "mesh.data x mesh.fsdp"),
    ],
)
def test_wrong_options_are_one_line(machine, arguments, message):
    with pytest.raises(InputError, match=message) as raised:
        main([*arguments])
    assert "\n" not in str(raised.value)


WITH_MACHINE = """
import jax, runpy, sys
from fit_jax.parallel.topology import Topology
Topology.devices = lambda self: jax.devices()[: self.chips]
sys.argv[0] = "plan"
runpy.run_module("fit_jax.plan", run_name="__main__")
"""


def test_a_sequence_that_the_mesh_does_not_divide_ends_with_status_2_and_one_line():
    arguments = [*TINY, "--mesh.data", "2", "--mesh.context", "4", "--train.sequence_length", "34"]
    command = [sys.executable, "-c", WITH_MACHINE, "--topology", "v5e:2x4", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: train.sequence_length: 34 tokens do not divide among 4 parts")
