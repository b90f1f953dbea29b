"""Code of the user's own: whatever it does, one line tells it."""

import errno
import os
import subprocess
import sys

import pytest

from fit_jax.errors import InputError, RunFailed
from fit_jax.signals import Terminated
from fit_jax.user_code import guarded


class Mute(Exception):
    def __str__(self):
        raise SystemExit(0)


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda: fail(ValueError("a\nb")), "ValueError: a b"),
        (lambda: fail(SystemExit(0)), "SystemExit: 0"),
        (lambda: fail(BaseException("x")), "BaseException: x"),
        (lambda: fail(Mute()), "Mute"),
        (lambda: os._exit(0), r"_ExitCalled: os._exit\(0\) was called"),
    ],
)
def test_whatever_happens_is_wrong_input(act, reason, monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda status: fail(RuntimeError("the process would have ended")))
    before = os._exit
    said = rf"^it failed \({reason}\) on the row \{{'a': 1\}}; mend it$"
    with pytest.raises(InputError, match=said), guarded("it failed", "mend it", {"a": 1}):
        act()
    assert os._exit is before


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Terminated(), InputError("as it is"), RunFailed("it is not"), MemoryError(), FULL]
)
def test_signals_and_errors_of_this_package_and_of_the_machine_pass(error):
    with pytest.raises(type(error)) as found, guarded("it failed", "mend it"):
        fail(error)
    assert found.value is error


def test_a_child_of_the_code_ends_itself(tmp_path):
    with guarded("it failed", "mend it"):
        child = os.fork()
        if child == 0:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_lines_are_short_whatever_fails():
    with pytest.raises(InputError) as error, guarded("it failed", "mend it", {"a" * 99: "b" * 99}):
        fail(ValueError("c" * 99))
    assert len(str(error.value)) < 130


def test_a_signal_ends_the_process_amid_the_code():
    program = (
        "import os, signal, time\nfrom fit_jax import signals\nfrom fit_jax.user_code import guarded\n"
        "signals.end_at_once()\nwith guarded('it failed', 'mend it'):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (143, "told to stop\n")
