"""Code of the user's own: whatever it does, one line tells it."""

import os

import pytest

from fit_jax.errors import InputError
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


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("as it is")])
def test_interrupts_and_errors_of_this_package_pass(error):
    with pytest.raises(type(error)) as found, guarded("it failed", "mend it"):
        fail(error)
    assert found.value is error
