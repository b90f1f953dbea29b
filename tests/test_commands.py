"""Commands: their options and help, how they end, and that `fit-jax` and `python -m` are the same."""

import errno
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

from fit_jax import convert, evaluate, plan, push, signals, steer, train
from fit_jax.cli import COMMANDS, run
from fit_jax.config import Config, MeshConfig
from fit_jax.config_files import dump_config
from fit_jax.data import __main__ as data
from fit_jax.errors import InputError, RunFailed
from fit_jax.experiment import __main__ as experiment
from fit_jax.options import Parser, add_checkpoint, nearest, new_file
from fit_jax.parallel import processes
from fit_jax.playground import __main__ as playground
from fit_jax.terminal import Terminal

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


@pytest.fixture
def parser():
    parser = Parser(prog="some")
    parser.add_argument("--text")
    parser.add_argument("--slot", action="append")
    parser.add_argument("--json", action="store_true")
    add_checkpoint(parser)
    return parser


def field_names(cls, prefix=""):
    for f in fields(cls):
        yield from field_names(f.type, f"{prefix}{f.name}.") if is_dataclass(f.type) else [prefix + f.name]


def ends(command, monkeypatch, *arguments):
    """The exit status of a command in the frame that all run in."""
    monkeypatch.setattr(sys, "argv", ["some", *arguments])
    monkeypatch.setattr(os, "_exit", sys.exit)
    for name in ("listen", "end_at_once"):  # pytest listens itself
        monkeypatch.setattr(signals, name, lambda: None)
    with pytest.raises(SystemExit) as end:
        run(command)
    return end.value.code


def test_options_are_given_as_one_word_or_two(parser):
    for arguments in (["--text", "a=b", "--slot", "c", "--slot=d"], ["--slot=c", "--slot", "d", "--text=a=b"]):
        given = parser.parse_args(arguments)
        assert (given.text, given.slot, given.json) == ("a=b", ["c", "d"], False)
    assert parser.parse_args(["--text", "-well-", "--json"]).text == "-well-"
    assert parser.parse_args(["--text", "-1"]).text == "-1"


def test_what_there_is_is_listed_where_it_is_short():
    assert nearest("colour", ["colours", "b"]) == "did you mean 'colours'?"
    assert nearest("--splits", ["--task.split_by", "--evaluation.splits"]) == "did you mean '--evaluation.splits'?"
    assert nearest("zzz", ["one", "two"]) == "known here: one, two"
    assert nearest("zzz", ["é" * 99, "ü" * 99]) == "--help lists what there is"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text"], "--text: expected one argument"),
        (["--text", "--json"], "--text: expected one argument"),
        (["--text", "a", "--text=b"], "--text is given twice"),
        (["--txt", "a"], "--txt: there is no such option; did you mean '--text'?"),
        (["--tex", "a"], "did you mean '--text'?"),
        (["text"], "unexpected argument 'text'"),
        (["--checkpoint", "newest"], "best, last or"),
        (["--checkpoint", "-1"], "best, last or"),
        (["--checkpoint", "²"], "best, last or"),
    ],
)
def test_wrong_options_are_told_with_the_nearest_match(arguments, said, parser):
    with pytest.raises(InputError) as error:
        parser.parse_args(arguments)
    assert said in str(error.value)


def test_checkpoints_are_named_or_numbered(parser):
    given = [parser.parse_args(a).checkpoint for a in ([], ["--checkpoint=last"], ["--checkpoint", "30"])]
    assert given == ["best", "last", 30]


def test_a_file_to_write_must_be_new_and_have_a_folder(tmp_path):
    assert new_file(str(tmp_path / "a.html")) == tmp_path / "a.html"
    for name, message in ((".", "nothing is overwritten"), ("none/a.html", "is no folder")):
        with pytest.raises(InputError, match=message):
            new_file(str(tmp_path / name))


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


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("row 3: bad\n  near here"), 2, "error: row 3: bad near here\n"),
        (InputError("label a\x1b[2J: unknown"), 2, "error: label a\\u001b[2J: unknown\n"),
        (RunFailed("the loss is not finite"), 1, "error: the loss is not finite\n"),
        (MemoryError("Unable to allocate 8 GiB"), 2, "error: Unable to allocate 8 GiB; lower train.batch_size"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating"),
            2,
            "Out of memory allocating; lower train.batch_size",
        ),
        (RuntimeError("INTERNAL: Out of memory allocating 9 bytes"), 2, "9 bytes; lower train.batch_size"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device; free space"),
        (RuntimeError("RESOURCE_EXHAUSTED: [...] No space left on device"), 2, "free space"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a/b"), 2, "Is a directory: 'a/b'; make it a file or"),
        (
            RuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [10.0.0.2]:19145"),
            1,
            "[10.0.0.2]:19145; another process of the job has ended: see its error",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_the_user_can_change_is_told_in_one_line(error, status, said, monkeypatch, capsys):
    def command(arguments):
        raise error

    assert ends(command, monkeypatch) == status
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_other_errors_and_debug_show_a_traceback(monkeypatch, capsys):
    def broken(arguments):
        raise ZeroDivisionError

    def refused(arguments):
        raise InputError(str(arguments))

    assert ends(broken, monkeypatch) == 1
    assert "Traceback" in capsys.readouterr().err
    for arguments in (["--debug", "a"], ["a", "--debug"]):
        assert ends(refused, monkeypatch, *arguments) == 2
        told = capsys.readouterr().err
        assert "Traceback" in told
        assert told.endswith("error: ['a']\n")


def test_closed_output_is_no_failure():
    """As by `>&-`, and by `| head`, which goes while the command still writes."""
    command = f"{sys.executable} -m fit_jax.train --help"
    assert subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True).returncode == 0
    done = subprocess.run(["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""


def test_a_table_into_a_pipe_that_closes_ends_as_all_output_does(monkeypatch):
    """By status 141, as `cat` does: 1 would say that a plan does not fit."""
    read, write = os.pipe()
    os.close(read)

    def command(_):
        Terminal(file=open(write, "w")).print("a table")  # noqa: SIM115 (its reader has gone)

    assert ends(command, monkeypatch) == 141


@pytest.mark.parametrize("name", COMMANDS)
def test_both_ways_to_a_command_have_one_help_that_needs_no_jax(name):
    """What is imported says more about the time it takes than a clock on a busy machine."""
    module, _ = COMMANDS[name]
    shown = []
    ways = (("from fit_jax.cli import main", [name, "--help"]), (f"from {module} import main", ["--help"]))
    for start, arguments in ways:
        code = (
            f"import sys\n{start}\nfrom fit_jax.cli import run\nsys.argv[1:] = {arguments!r}\n"
            f"try:\n    run(main) if {len(arguments)} == 1 else main()\nexcept SystemExit as end:\n"
            "    heavy = {'jax', 'flax', 'transformers', 'numpy', 'datasets'} & {*sys.modules}\n"
            "    sys.exit(f'imported {heavy}' if heavy else end.code)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        shown.append(done.stdout.partition("\n\n")[2])
    assert shown[0] == shown[1] != ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_what_the_command_does(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        MODULES[name].main(["--help"])
    assert MODULES[name].__doc__.strip() in capsys.readouterr().out


def test_the_console_script_tells_its_version_and_help_of_the_traceback():
    for arguments, said in ((["--version"], "fit_jax "), (["--help"], "--debug"), (["plan", "--help"], "--debug")):
        code = f"import sys; sys.argv[1:] = {arguments!r}; from fit_jax.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout


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
    ("typed", "offered"),
    [("fit-jax ev", "evaluate"), ("fit-jax data a", "audit"), ("fit-jax train --mesh.fs", "--mesh.fsdp")],
)
def test_a_shell_completes_commands_and_fields(typed, offered, tmp_path):
    """As argcomplete's function for the shell asks."""
    pytest.importorskip("argcomplete", reason="completion needs argcomplete")
    out = tmp_path / "offered"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    asked |= {"COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    code = "import sys; sys.argv[0] = 'fit-jax'; from fit_jax.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | asked, check=True)
    assert out.read_text().split() == [offered]


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
