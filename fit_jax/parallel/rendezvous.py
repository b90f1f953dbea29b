"""The rendezvous before a job of several processes starts: says which of them are missing.

JAX's own start-up is not enough: when a process does not come in time, it aborts those that did from C++ (status 134,
a stack trace), where Python cannot catch it, and names nobody; its barriers work only after that start-up. So the
processes first report to process 0 at the address that its coordinator will have; it tells all whether to go on.

What they say is signed with the job's key, `FIT_JAX_JOB_KEY` in the environment of each process. Without one, who
reaches the port is believed. JAX's own start-up, which follows at the same port, believes it in any case: the port must
be reachable from the job's machines alone.
"""

import hmac
import os
import selectors
import socket
import time
from contextlib import ExitStack

from fit_jax.errors import InputError
from fit_jax.foreign import listed, shown

_GREETING = "fit_jax"
_GO = "go"
_KEY = "FIT_JAX_JOB_KEY"
_PAUSE = 0.2  # seconds between attempts to reach process 0
_LONGEST = 4096  # bytes of a report or a verdict


def is_address(text: str) -> bool:
    """Whether sockets take the text for `host:port`, whoever is there."""
    host, _, port = text.rpartition(":")
    try:
        is_host = bool(host.strip("[]").encode("idna"))
    except UnicodeError:  # a label that is empty, too long or holds what no name may
        return False
    return is_host and port.isascii() and port.isdigit() and len(port) < 10 and 0 < int(port) < 2**16


def rendezvous(address: str, count: int, number: int, timeout: float) -> None:
    """Returns when all processes have reported.

    Args:
        address: `host:port` of process 0; the port is free again afterwards.
        count: Processes of the job.
        number: This process, from 0.
        timeout: Seconds to wait.

    Raises:
        InputError: Some processes did not report in time; the message names them. Every process that did raises it.
    """
    deadline = time.monotonic() + timeout
    if number == 0:
        _gather(int(address.rpartition(":")[2]), count, timeout, deadline)
    else:
        _report(address, count, number, timeout, deadline)


def _gather(port: int, count: int, timeout: float, deadline: float) -> None:
    """Process 0: waits for the others, then tells them all to go on, or why not.

    It listens to all connections at once: none that is silent, or sends a byte now and then, holds up the others or
    the deadline.
    """
    present = {0: socket.gethostname()}
    with ExitStack() as stack:
        try:
            server = stack.enter_context(socket.create_server(("", port), backlog=count))
        except OSError as error:
            raise InputError(
                f"port {port} of the coordinator cannot be opened: {error.strerror}; choose another"
            ) from error
        selector = stack.enter_context(selectors.DefaultSelector())
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        received: dict[socket.socket, bytes] = {}  # of the callers that have not yet said who they are
        reported: list[socket.socket] = []
        verdict, unsigned = _GO, 0
        while len(present) < count and verdict == _GO:
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if time.monotonic() >= deadline:
                verdict = _missing(present, unsigned, count, timeout)
                break
            for key, _ in ready:
                if key.fileobj is server:
                    try:
                        caller = stack.enter_context(server.accept()[0])
                    except OSError:  # it has gone again
                        continue
                    caller.setblocking(False)
                    selector.register(caller, selectors.EVENT_READ)
                    received[caller] = b""
                    continue
                caller = key.fileobj
                assert isinstance(caller, socket.socket)
                part = _received(caller)
                received[caller] += part
                if part and b"\n" not in received[caller] and len(received[caller]) < _LONGEST:
                    continue  # there is more to come
                selector.unregister(caller)
                report = _parsed(line := received.pop(caller), count)
                if report is None:
                    unsigned += line.startswith(_GREETING.encode()) and not _verified(line)
                    caller.close()
                    continue
                reported.append(caller)
                number, host = report
                if number in present:
                    verdict = f"two processes say that they are number {number}: on {present[number]} and on {host}"
                present[number] = host
        server.close()
        for connection in reported:
            _tell(connection, verdict)
    if verdict != _GO:
        raise InputError(verdict)


def _report(address: str, count: int, number: int, timeout: float, deadline: float) -> None:
    """The others: report to process 0 and wait for its verdict."""
    here = socket.gethostname()
    host, _, port = address.rpartition(":")
    while True:
        try:
            with socket.create_connection(
                (host.strip("[]"), int(port)), timeout=max(deadline - time.monotonic(), 1)
            ) as connection:
                connection.sendall(_signed(f"{_GREETING} {number} {count} {here}"))
                # Process 0 may have started later.
                verdict = _verified(_read_line(connection, max(deadline, time.monotonic() + 1) + timeout))
            if verdict:
                break
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise InputError(
                f"process 0 did not answer at {shown(address)} within {timeout:g} s (this is process {number} of "
                f"{count}, on {here}); see whether it was started, whether that port is open, and whether both have "
                f"the same {_KEY}"
            )
        time.sleep(_PAUSE)
    if verdict != _GO:
        raise InputError(verdict)


def _missing(present: dict[int, str], unsigned: int, count: int, timeout: float) -> str:
    """What to say of the processes that are not present; `unsigned` reports had another signature."""
    absent = listed((str(n) for n in range(count) if n not in present), 4)
    here = listed((f"{n} on {host}" for n, host in sorted(present.items())), 2)
    called = f", and somebody called with another {_KEY}" if unsigned else ""
    return (
        f"process {absent} of {count} did not start within {timeout:g} s{called}; present: {here}; start them all "
        "together"
    )


def _received(caller: socket.socket) -> bytes:
    """What has arrived; empty where the caller has gone."""
    try:
        return caller.recv(_LONGEST)
    except OSError:
        return b""


def _parsed(line: bytes, count: int) -> tuple[int, str] | None:
    """Number and host of the process that reported; None where it was something else."""
    words = _verified(line).split()
    known = len(words) == 4 and words[0] == _GREETING and words[2] == str(count)
    if not known or not words[1].isascii() or not words[1].isdigit() or int(words[1]) >= count:
        return None
    return int(words[1]), shown(words[3])


def _tell(connection: socket.socket, verdict: str) -> None:
    """Sends the verdict, then lets the other side hang up first, which leaves the port free for JAX."""
    try:
        connection.settimeout(5)
        connection.sendall(_signed(verdict))
        connection.recv(1)
    except OSError:
        pass  # it has gone; JAX's own start-up will notice


def _signed(text: str) -> bytes:
    """The text and its signature as a line."""
    return f"{text} {_signature(text)}\n".encode()


def _verified(line: bytes) -> str:
    """The text of a signed line; empty where the signature is another."""
    text, _, signature = line.decode(errors="replace").strip().rpartition(" ")
    return text if hmac.compare_digest(signature.encode(), _signature(text).encode()) else ""


def _signature(text: str) -> str:
    return hmac.new(os.environ.get(_KEY, "").encode(), text.encode(), "sha256").hexdigest()


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """The line that process 0 sends; empty where it hangs up, sends none in time or too long a one."""
    received = b""
    while not received.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(1024)
        if not part or len(received) > _LONGEST:
            return b""
        received += part
    return received
