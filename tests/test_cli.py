"""The frame that all commands run in: how they end, and what they say then."""

import errno
import os
import subprocess
import sys

import pytest

from fit_jax import signals
from fit_jax.cli import COMMANDS, run
from fit_jax.errors import CommandDone, InputError, RunFailed
from fit_jax.terminal import Terminal


def ends(command, monkeypatch, *arguments):
    """The exit status of a command in the frame that all run in."""
    monkeypatch.setattr(sys, "argv", ["some", *arguments])
    monkeypatch.setattr(os, "_exit", sys.exit)
    for name in ("listen", "end_at_once"):  # pytest listens itself
        monkeypatch.setattr(signals, name, lambda: None)
    with pytest.raises(SystemExit) as end:
        run(command)
    return end.value.code


@pytest.mark.parametrize(("end", "status"), [(CommandDone(0), 0), (SystemExit(0), 1), (SystemExit(3), 1)])
def test_only_help_ends_a_command_early_and_well(end, status, monkeypatch, capsys):
    def command(arguments):
        raise end

    assert ends(command, monkeypatch) == status
    assert ("SystemExit" in capsys.readouterr().err) == bool(status)


@pytest.fixture(autouse=True)
def nothing_to_add():
    """What an interrupted training of an earlier test would have added to its line is forgotten."""
    with signals.telling(str):
        pass


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
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "Cannot allocate memory; lower train.batch_size"),
        (RuntimeError("can't start new thread"), 2, "can't start new thread; end other programs, or raise"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "Too many open files; end other programs, or raise"),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected", "a"), 2, "connected: 'a'; make it a file or"),
        (OSError(errno.ENXIO, "No such device", "a"), 2, "No such device: 'a'; make it a file or"),
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


def test_the_status_tells_of_an_error_that_nobody_can_be_told(monkeypatch):
    """As where what reads standard error has gone, or its disk is full."""
    read, gone = os.pipe()
    os.close(read)

    def refused(_):
        raise InputError("row 3: bad")

    for target in (gone, "/dev/full"):
        monkeypatch.setattr(sys, "stderr", open(target, "w", buffering=1))  # noqa: SIM115
        assert ends(refused, monkeypatch) == 2


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


def test_the_console_script_tells_its_version_and_help_of_the_traceback():
    for arguments, said in ((["--version"], "fit_jax "), (["--help"], "--debug"), (["plan", "--help"], "--debug")):
        code = f"import sys; sys.argv[1:] = {arguments!r}; from fit_jax.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout


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
