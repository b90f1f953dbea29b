"""Commands: the arguments and the help of each, and that those with a mesh start with it."""

from dataclasses import fields, is_dataclass

import pytest

from fit_jax import convert, evaluate, plan, push, steer, train
from fit_jax.cli import COMMANDS
from fit_jax.config import Config, MeshConfig
from fit_jax.config_files import dump_config
from fit_jax.data import __main__ as data
from fit_jax.errors import InputError
from fit_jax.experiment import __main__ as experiment
from fit_jax.parallel import processes
from fit_jax.playground import __main__ as playground

MODULES = {
    "train": train,
    "evaluate": evaluate,
    "steer": steer,
    "playground": playground,
    "data": data,
    "experiment": experiment,
    "convert": convert,
    "push": push,
    "plan": plan,
}


def field_names(cls, prefix=""):
    for f in fields(cls):
        yield from field_names(f.type, f"{prefix}{f.name}.") if is_dataclass(f.type) else [prefix + f.name]


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (convert, [], "required: COMMAND"),
        (convert, ["imprt"], "did you mean 'import'"),
        (convert, ["import", "--to", "x"], "required: --from"),
        (convert, ["import", "--from", "a", "--to", "b", "--dtype", "float16"], "--dtype: invalid choice: 'float16'"),
        (convert, ["check", "--modle", "x"], "did you mean '--model'"),
        (plan, [], "required: --topology"),
        (plan, ["--topology", "v5e:2x2", "--price", "-1"], "--price -1.0: must be an amount from 0 up"),
        (plan, ["--topology", "v5e:2x2", "--price", "cheap"], "invalid float value: 'cheap'"),
        (plan, ["--topology", "v5e:2x2", "--slices", "0"], "must be 1 or more"),
        (evaluate, [], "required: RUN"),
        (steer, ["--text", "a"], "required: RUN"),
        (train, ["--optimizer.lr", "1"], "--optimizer.lr: there is no such option; did you mean '--optimizer"),
        (experiment, ["--method", "x"], "did you mean '--methods'"),
    ],
)
def test_wrong_commands_are_told(command, arguments, said):
    with pytest.raises(InputError) as error:
        command.main(arguments)
    assert said in str(error.value)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_the_command_does(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        MODULES[name].main(["--help"])
    assert MODULES[name].__doc__.strip() in capsys.readouterr().out


def test_help_lists_every_field_with_type_default_and_meaning(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        train.main(["--help"])
    shown = capsys.readouterr().out.splitlines()
    (steps,) = [n for n, line in enumerate(shown) if line.startswith("  --train.steps int|null")]
    assert "Optimizer steps; null means" in " ".join(shown[steps : steps + 2])
    assert "(default: 600)" in " ".join(shown[steps : steps + 2])
    options = {line.split()[0]: " ".join(shown[n : n + 2]) for n, line in enumerate(shown) if line.startswith("  --")}
    for name in field_names(Config):
        assert "(default: " in options.pop(f"--{name}")
    assert list(options) == ["--changed_inputs", "--config"]


@pytest.mark.parametrize("command", [evaluate, steer])
def test_a_trained_run_offers_what_may_change(command, capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  --{name} " in shown for name in ("mesh.fsdp", "evaluation.splits", "model.attention"))
    assert not any(f"--{name} " in shown for name in ("train.steps", "model.width", "run_dir", "config"))


@pytest.mark.parametrize(
    ("option", "said"), [("--run.run_dir", "--run_dir"), ("--run.seed", "--seeds"), ("--run.train.method", "--methods")]
)
def test_an_experiment_refuses_what_its_cells_set(option, said):
    for arguments in ([option, "3"], [f"{option}=3"]):
        with pytest.raises(InputError, match=f"{option}: is set by each cell .* {said}"):
            experiment.main(arguments)


def test_every_command_that_takes_a_mesh_starts_with_it(tmp_path, monkeypatch):
    """What the command line asks, or else the run's own config."""

    def start(config):
        raise InputError(f"{config.processes} processes, timeout {config.timeout}")

    monkeypatch.setattr(processes, "start", start)
    (tmp_path / "config.yaml").write_text(dump_config(Config(mesh=MeshConfig(processes=3, timeout=7))))
    asked = ["--mesh.processes", "2", "--mesh.timeout", "5"]
    for command, arguments in (
        (train, asked),
        (evaluate, [str(tmp_path), *asked]),
        (steer, [*asked, str(tmp_path), "--text", "a"]),
        (experiment, [argument.replace("--", "--run.") for argument in asked]),
    ):
        with pytest.raises(InputError, match="2 processes, timeout 5"):
            command.main(arguments)
    for command in (evaluate, steer):
        with pytest.raises(InputError, match="3 processes, timeout 7"):
            command.main([str(tmp_path)])
