import hmac
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fit_jax.errors import InputError
from fit_jax.parallel.rendezvous import rendezvous


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def together(address, numbers, count, timeout):
    """What each process raised, or None."""

    def report(number):
        try:
            return rendezvous(address, count, number, timeout)
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(report, numbers))


def test_all_go_on_and_the_port_is_free_again(address):
    assert together(address, range(4), 4, timeout=10) == [None] * 4
    socket.create_server(("", int(address.rpartition(":")[2]))).close()


def test_those_present_learn_who_is_missing(address):
    told = together(address, [0, 2], 4, timeout=0.5)
    assert all("process 1, 3 of 4 did not start within 0.5 s" in message for message in told)
    assert all(f"0 on {socket.gethostname()}, 2 on" in message for message in told)


def test_a_missing_process_zero_is_named(address):
    (message,) = together(address, [1], 2, timeout=0.5)
    assert f"process 0 did not answer at {address} within 0.5 s" in message
    assert message.endswith("whether both have the same FIT_JAX_JOB_KEY")


def test_two_processes_of_one_number_are_told(address):
    told = together(address, [0, 1, 1], 4, timeout=5)
    assert sum("number 1" in (message or "") for message in told) >= 2


def test_strangers_are_ignored(address):
    def stranger():
        for _ in range(100):
            try:
                with socket.create_connection(tuple(address.split(":")), timeout=1) as line:
                    return line.sendall(b"GET / HTTP/1.1\r\n\r\n")
            except OSError:
                pass

    with ThreadPoolExecutor(1) as pool:
        pool.submit(stranger)
        assert together(address, [0, 1], 2, timeout=10) == [None, None]


def calling(address: str, line: bytes) -> None:
    """Sends process 0 a line as soon as it listens."""
    for _ in range(500):
        try:
            with socket.create_connection(tuple(address.split(":")), timeout=5) as connection:
                connection.sendall(line)
                connection.recv(1)
                return
        except OSError:
            time.sleep(0.01)


@pytest.mark.parametrize("key", ["ours", "theirs", None])
def test_a_report_counts_with_the_jobs_key_alone(address, monkeypatch, key):
    """And whoever says something else, such as a browser, is not taken for a process with another key."""
    monkeypatch.setenv("FIT_JAX_JOB_KEY", "ours")
    report = b"fit_jax 2 3 elsewhere" if key else b"GET / HTTP/1.1"
    signature = hmac.new((key or "").encode(), report, "sha256").hexdigest().encode()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(calling, address, report + b" " + signature + b"\n")
        told = together(address, [0, 1], 3, timeout=2)
    if key == "ours":
        assert told == [None, None]
        return
    why = ", and somebody called with another FIT_JAX_JOB_KEY" if key else ""
    assert all(f"process 2 of 3 did not start within 2 s{why}; present: 0 on" in line for line in told)


def test_a_line_about_many_processes_and_long_names_stays_short(address, monkeypatch):
    monkeypatch.delenv("FIT_JAX_JOB_KEY", raising=False)
    report = b"fit_jax 7 200 " + b"h" * 3000
    signature = hmac.new(b"", report, "sha256").hexdigest().encode()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(calling, address, report + b" " + signature + b"\n")
        (told,) = together(address, [0], 200, timeout=1)
    assert told.startswith("process 1, 2, 3, 4 and 194 more of 200 did not start within 1 s; present: 0 on ")
    assert ", 7 on hhh" in told
    assert len(told.rpartition(";")[0]) <= 200


def test_callers_that_drip_or_are_silent_hold_nobody_up(address):
    """Neither those who are there, nor the deadline."""
    host, port = address.split(":")
    stop = threading.Event()

    def connected():
        while not stop.is_set():
            try:
                return socket.create_connection((host, int(port)), timeout=1)
            except OSError:
                time.sleep(0.01)

    def drip():
        with connected(), connected() as line:
            while not stop.wait(0.02):
                try:
                    line.sendall(b"f")
                except OSError:
                    return

    with ThreadPoolExecutor(1) as pool:
        pool.submit(drip)
        began = time.monotonic()
        told = together(address, [0, 2], 3, timeout=1)
        assert time.monotonic() - began < 4
        stop.set()
    assert all("process 1 of 3 did not start within 1 s" in message for message in told)
