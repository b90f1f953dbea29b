"""A trace holds the steps that were asked for, where TensorBoard's profile page looks for them."""

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from fit_jax.errors import InputError
from fit_jax.training.trace import Trace

STEP = jax.jit(lambda x: x + 1)


def recorded(folder) -> list[int]:
    """Numbers of the steps in the traces of a TensorBoard folder."""
    (file,) = (folder / "plugins" / "profile").glob("*/*.xplane.pb")
    events = (e for p in ProfileData.from_file(str(file)).planes for line in p.lines for e in line.events)
    return sorted(int(dict(event.stats)["step_num"]) for event in events if event.name == "train")


def run(trace: Trace, steps: int) -> int:
    x = jnp.zeros(())
    for number in range(1, steps + 1):
        x = trace.step(number, lambda x=x: STEP(x))
    trace.close()
    return int(x)


def test_the_steps_after_the_first_are_recorded(tmp_path):
    assert run(Trace(tmp_path, 2), 5) == 5
    assert recorded(tmp_path) == [2, 3]


def test_a_run_that_ends_sooner_leaves_what_there_is(tmp_path):
    assert run(Trace(tmp_path, 9), 3) == 3
    assert recorded(tmp_path) == [2, 3]


def test_a_trace_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "plugins").touch()
    with pytest.raises(InputError, match=r"cannot write the trace in .*; free space, or leave out train\.profile"):
        run(Trace(tmp_path, 1), 2)


def test_nothing_is_recorded_where_nobody_asked(tmp_path):
    assert run(Trace(tmp_path, 0), 3) == 3
    assert not list(tmp_path.iterdir())
