"""A signal ends a command with one line and its status, whatever the command is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

FRAME = """
import hashlib, sys, time
from fit_jax import signals
from fit_jax.cli import run

def swallows():
    while True:
        try:
            signals.check()
            time.sleep(0.01)
        except BaseException:
            if swallowed: raise
            swallowed.append(1)

def command(arguments):
    print("ready", flush=True)
    {work}

swallowed = []
run(command)
"""
# What a command may be at: waiting, in a library's callback that swallows what is raised, deep in foreign code.
WORK = {
    "waits": "time.sleep(60)",
    "is in a callback that swallows": "swallows()",
    "is in a destructor, whose errors Python only prints": "\n".join(
        ["class Slow:", "        def __del__(self): time.sleep(0.2)", "    while True: (Slow(), signals.check())"]
    ),
    "computes where Python does not listen": "hashlib.pbkdf2_hmac('sha512', b'', b'', 2**27)",
    "has made something else of it": "\n".join(
        ["try: time.sleep(60)", "    except BaseException as error: raise ValueError('two\\nlines') from error"]
    ),
}


def ended(process: subprocess.Popen, sent: signal.Signals) -> tuple[int, str]:
    """Exit status and standard error of a process that gets the signal once it says to be ready."""
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        _, told = process.communicate(timeout=60)
    return process.returncode, told


def start(arguments, **environment) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize(
    ("sent", "expected"),
    [(signal.SIGINT, (130, "interrupted\n")), (signal.SIGTERM, (143, "told to stop\n"))],
)
def test_a_command_ends_with_one_line(work, sent, expected):
    process = start(["-c", FRAME.replace("{work}", WORK[work])])
    assert ended(process, sent) == expected


@pytest.mark.parametrize("work", ["waits", "computes where Python does not listen"])
def test_the_line_says_what_the_command_would_do_again(work):
    ready = 'print("ready", flush=True)'
    told = f"with signals.telling(lambda: 'nothing was saved yet'): {ready}; {WORK[work]}"
    process = start(["-c", FRAME.replace(f"    {ready}\n", "").replace("{work}", told)])
    assert ended(process, signal.SIGINT) == (130, "interrupted: nothing was saved yet\n")


def test_a_command_that_still_imports_ends_with_one_line(tmp_path):
    (tmp_path / "draccus.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    for module in ("train", "steer"):
        process = start(["-m", f"fit_jax.{module}", "--help"], PYTHONPATH=path)
        assert ended(process, signal.SIGINT) == (130, "interrupted\n")


def fragile(folder, work: str, seconds: float = 0.5, **environment) -> subprocess.Popen:
    """A command that imports what takes the process with it where it is cut off, as an extension in C does."""
    (folder / "fragile.py").write_text(
        f"import os, time\nprint('ready', flush=True)\ntry:\n    time.sleep({seconds})\n"
        "except BaseException:\n    os.abort()\nprint('imported', flush=True)\n"
    )
    script = FRAME.replace('    print("ready", flush=True)\n', "").replace("import hashlib,", "import hashlib, signal,")
    path = os.pathsep.join([str(folder), *sys.path])
    return start(["-c", script.replace("{work}", work)], PYTHONPATH=path, **environment)


CLEANS = "try:\n        import fragile; {then}\n    finally: print('cleaned', flush=True)"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("then", ["time.sleep(60)", "swallows()", "pass"])
def test_an_import_of_the_commands_own_is_over_before_it_ends(tmp_path, sent, then):
    """And then it ends at once, with all that it cleans up, also where it waits for the system or has nothing to do."""
    process = fragile(tmp_path, CLEANS.format(then=then))
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        output, told = process.communicate(timeout=60)
    assert output == "imported\ncleaned\n"
    assert (process.returncode, told.count("\n")) == (128 + sent, 1)


def test_a_second_signal_amid_an_import_ends_at_once(tmp_path):
    process = fragile(tmp_path, "signals._PATIENCE = 60; import fragile", seconds=60)
    with process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(100):  # on a busy machine two that follow closely are one
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            if process.poll() is not None:
                break
        output, told = process.communicate(timeout=1)
    assert (output, told, process.returncode) == ("", "interrupted\n", 130)


def test_what_came_amid_an_import_comes_to_who_puts_signals_off(tmp_path):
    asks = "import fragile\n    with signals.deferred(signal.SIGTERM) as has_come: print(has_come(), flush=True)"
    process = fragile(tmp_path, asks)
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert (output, process.returncode) == ("imported\nTrue\n", 0)


def test_who_only_imports_the_package_keeps_pythons_own_handlers():
    code = (
        "import signal; kept = signal.getsignal(signal.SIGINT); import fit_jax.cli, fit_jax.train;"
        "assert signal.getsignal(signal.SIGINT) is kept"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_signal_that_nobody_was_told_of_comes_when_it_is_no_longer_put_off():
    """What was told of is the program's own to act on."""
    work = (
        "with signals.deferred(signal.SIGTERM) as has_come: os.kill(os.getpid(), signal.SIGTERM); {asks}\n"
        "    print('goes on', flush=True)"
    )
    for asks, said, status in (("assert has_come()", "goes on\n", 0), ("pass", "", 143)):
        script = FRAME.replace("import hashlib,", "import hashlib, os, signal,").format(work=work.format(asks=asks))
        with start(["-c", script]) as process:
            output, _ = process.communicate(timeout=60)
        assert (output.removeprefix("ready\n"), process.returncode) == (said, status)
