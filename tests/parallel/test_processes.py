import errno
import os
import socket
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest

from fit_jax.config import MeshConfig
from fit_jax.config_files import decode_config
from fit_jax.errors import InputError, RunFailed
from fit_jax.foreign import shown
from fit_jax.parallel import processes
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import Agreement, rows_of_this_process, start, to_global
from fit_jax.parallel.rendezvous import is_address


class Rows(NamedTuple):
    tokens: np.ndarray
    target_ids: np.ndarray

    @property
    def axes(self):
        return Rows("BT", "BC")


@pytest.mark.parametrize("config", [MeshConfig(), MeshConfig(fsdp=2, tensor=2), MeshConfig(data=2, context=4)])
def test_one_process_holds_all_rows_split_over_data_and_fsdp(config):
    mesh = make_mesh(config)
    assert rows_of_this_process(16, mesh) == slice(0, 16)
    batch = Rows(np.arange(16 * 8).reshape(16, 8), np.arange(16 * 3).reshape(16, 3))
    placed = to_global(batch, mesh)
    for array, expected in zip(placed, batch):
        np.testing.assert_array_equal(jax.device_get(array), expected)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    assert placed.tokens.sharding.shard_shape((16, 8)) == (16 // parts, 8 // mesh.shape["context"])
    assert placed.target_ids.sharding.shard_shape((16, 3)) == (16 // parts, 3)


COMMAND = """
import errno, os, signal, time
from fit_jax.cli import run

def command(arguments):
    from fit_jax.config import MeshConfig
    from fit_jax.parallel.processes import start

    start(MeshConfig(timeout=30))
    if os.environ.get("JAX_PROCESS_ID") == "0":
        time.sleep(60)
    raise {error}

run(command)
"""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            "OSError(errno.ENOSPC, 'No space left on device')",
            2,
            "error: {}[Errno 28] No space left on device; free space",
        ),
        ("KeyboardInterrupt", 130, "interrupted"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "told to stop"),
        ("ZeroDivisionError('by zero')", 1, "Traceback"),
    ],
)
def test_an_error_ends_one_process_of_many_as_it_ends_the_only_one(error, status, said):
    """The same line and status, and at once, though the other process is busy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    def started(**place):
        flags = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", COMMAND.format(error=error)]
        return subprocess.Popen(command, env=os.environ | flags | place, stderr=subprocess.PIPE, text=True)

    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    busy, failing, alone = started(**job, JAX_PROCESS_ID="0"), started(**job, JAX_PROCESS_ID="1"), started()
    try:
        told, told_alone = failing.communicate(timeout=200)[1], alone.communicate(timeout=200)[1]
        assert busy.poll() is None
    finally:
        busy.kill()
        busy.communicate()
    assert (failing.returncode, alone.returncode) == (status, status)
    assert told_alone.startswith(said.format(""))
    assert told.startswith(said.format(f"process 1 of 2 on {socket.gethostname()}: "))
    if status != 1:
        assert told.count("\n") == told_alone.count("\n") == 1


def test_what_one_asks_all_know_one_call_later():
    with jax.transfer_guard("disallow"):
        agreed = Agreement()
        assert [agreed(asks) for asks in (False, True, False, False)] == [False, False, True, False]


def test_all_go_by_what_the_lead_finds_and_none_does_alone_what_another_cannot(monkeypatch):
    assert processes.as_lead_finds(lambda: True)
    assert not processes.as_lead_finds(lambda: False)
    assert processes.on_all(lambda: 7) == 7
    monkeypatch.setattr(processes, "maximum_over_processes", lambda table: [[1]])
    with pytest.raises(InputError, match="another process of the job cannot"):
        processes.on_all(lambda: 7)
    monkeypatch.setattr(processes, "is_lead", lambda: False)
    assert processes.as_lead_finds(lambda: False)
    monkeypatch.setattr(processes, "maximum_over_processes", lambda table: table)
    assert not processes.as_lead_finds(lambda: True)


@pytest.mark.parametrize(
    ("error", "told"),
    [(InputError("full"), InputError), (OSError(errno.ENOSPC, "full"), InputError), (RunFailed("no"), RunFailed)],
)
def test_what_the_lead_finds_wrong_ends_the_others_with_its_status(monkeypatch, error, told):
    def fail():
        raise error

    seen = []
    monkeypatch.setattr(processes, "maximum_over_processes", lambda table: seen.extend(table) or table)
    assert processes.on_lead(lambda: 7) == 7
    with pytest.raises(type(error), match=str(error.args[-1])):
        processes.on_lead(fail)

    def lost(table):
        raise RuntimeError("Gloo: another process has ended")

    monkeypatch.setattr(processes, "maximum_over_processes", lost)
    with pytest.raises(type(error), match=str(error.args[-1])):
        processes.on_lead(fail)
    monkeypatch.setattr(processes, "maximum_over_processes", lambda table: [seen.pop(0)])
    monkeypatch.setattr(processes, "is_lead", lambda: False)
    assert processes.on_lead(fail) is None
    with pytest.raises(told, match="process 0 of the job tells what is wrong; see its line"):
        processes.on_lead(fail)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "a_b-1.jobs.svc", "localhost.", "[::1]", "[fe80::1%eth0]", "bücher.example"]
)
def test_addresses_of_every_kind_are_ones(host):
    assert is_address(f"{host}:1234")


_NO_ADDRESSES = ["host", ":1", "host:", "host:0", "host:65536", "host:²", "host:a", "a..b:12", "h\u2028:1", "[]:1"]


@pytest.mark.parametrize("address", [*_NO_ADDRESSES, f"{'h' * 300}:1"])
def test_an_address_that_is_none_is_told(address, monkeypatch):
    for name, value in zip(("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"), (address, "2", "0")):
        monkeypatch.setenv(f"JAX_{name}", value)
    with pytest.raises(InputError, match=r"JAX_COORDINATOR_ADDRESS=.*: is no host:port") as error:
        start(MeshConfig(timeout=1))
    assert shown(address) in str(error.value)


def test_places_that_are_none_are_told_in_a_short_line(monkeypatch):
    for name in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.setenv(f"JAX_{name}", "\x1b[2J" + "9" * 3000)
    with pytest.raises(InputError, match="all three are needed") as error:
        start(MeshConfig())
    assert len(str(error.value).rpartition(": all three")[0]) <= 200
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Unable to initialize backend 'gpu':\nnot known " + "a" * 300), "'gpu': not known aaa"),
        (AssertionError(), "no such devices"),  # as `cuda` without a GPU
    ],
)
def test_devices_that_are_not_there_are_told(error, said, monkeypatch):
    def none():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "gpu" + "u" * 300)
    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(InputError, match=rf"^JAX_PLATFORMS=gpuu{{,80}}\.\.\.: cannot be used .{said}") as told:
        start(MeshConfig())
    assert len(str(told.value).partition(";")[0]) <= 200


@pytest.mark.parametrize("field", ["timeout", "processes", "slices"])
def test_times_and_numbers_are_positive(field):
    for value in (0, -3):
        with pytest.raises(InputError, match=f"mesh.{field}: {value} is less than 1"):
            decode_config(MeshConfig, {field: value})
