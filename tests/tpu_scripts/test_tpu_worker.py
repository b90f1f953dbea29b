"""What runs on a host of the TPU, run here with a stub in the place of Python."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .stub_tools import SCRIPTS

PYTHON = """#!/usr/bin/env bash
printf '%s\\0' "$PWD" "$@" >>"$RECORD"
echo "training says something"
until [[ -e $RECORD.go ]]; do sleep 0.02; done
exit "$(<"$RECORD.go")"
"""


class Host:
    """A home folder as install.sh leaves it."""

    def __init__(self, home: Path):
        self.fit = home / "fit_jax"
        self.record = home / "record"
        self.worker = self.fit / "source" / "tpu_scripts" / "worker.sh"
        self.worker.parent.mkdir(parents=True)
        shutil.copy(SCRIPTS / "worker.sh", self.worker)
        self.python = self.fit / "venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)
        self.env = {**os.environ, "RECORD": str(self.record)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", self.worker, *arguments], env=self.env, capture_output=True, text=True, timeout=120
        )

    def status(self) -> str:
        return self.run("status").stdout.strip()

    def finish(self, status: int) -> None:
        """Lets training end with `status`."""
        (self.record.parent / "part").write_text(str(status))
        (self.record.parent / "part").rename(f"{self.record}.go")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, self.status()
            time.sleep(0.02)

    def wait_for(self, status: str) -> None:
        self.wait_until(lambda: self.status() == status)


@pytest.fixture
def host(tmp_path: Path):
    host = Host(tmp_path / "my home")
    yield host
    if host.record.parent.exists():
        host.finish(0)


def test_life_of_a_run(host: Host):
    assert host.status() == "fit_jax: absent"
    arguments = ["--config", "a b.yaml", "--task.name", "it's $HOME"]
    assert host.run("launch", *arguments).returncode == 0
    assert host.status() == "fit_jax: running"
    host.finish(7)
    host.wait_for("fit_jax: exited 7")
    source = str(host.fit / "source")
    assert host.record.read_text().split("\0")[:-1] == [source, "-m", "fit_jax.train", *arguments]
    assert "training says something" in (host.fit / "train.log").read_text()


def test_second_launch_is_refused_while_the_first_runs(host: Host):
    host.run("launch", "--config", "a.yaml")
    second = host.run("launch", "--config", "a.yaml")
    assert second.returncode == 1
    assert "running" in second.stderr
    host.finish(0)
    host.wait_for("fit_jax: exited 0")
    assert host.record.read_text().count("fit_jax.train") == 1


def test_launch_forgets_the_last_status_and_keeps_the_log(host: Host):
    host.run("launch", "--config", "a.yaml")
    host.finish(1)
    host.wait_for("fit_jax: exited 1")
    Path(f"{host.record}.go").unlink()
    host.run("launch", "--config", "a.yaml")
    assert host.status() == "fit_jax: running"
    host.finish(0)
    host.wait_for("fit_jax: exited 0")
    assert (host.fit / "train.log").read_text().count("training says something") == 2


def test_shutdown_of_the_host_leaves_no_status(host: Host):
    """Every process gets SIGTERM: the shell dies, training saves and ends with 0, which must not read as finished."""
    host.run("launch", "--config", "a.yaml")
    host.wait_until(host.record.exists)
    (shell,) = (
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"{host.worker}\0train".encode() in read(entry / "cmdline")
    )
    os.kill(shell, signal.SIGTERM)
    assert host.status() == "fit_jax: running"
    host.finish(0)
    host.wait_for("fit_jax: absent")


def read(file: Path) -> bytes:
    """The file's bytes; none where the process has gone."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_install(host: Host, tmp_path: Path):
    """A host without a virtual environment gets one; one that has it only gets the code."""
    log = tmp_path / "log"
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "python3").write_text(
        f'#!/usr/bin/env bash\necho "$PIP_BREAK_SYSTEM_PACKAGES python3 $*" >>{log}\n'
        f'if [[ $2 == uv ]]; then mkdir -p "${{!#}}/bin"; cp {binaries}/venv-python "${{!#}}/bin/python"; fi\n'
    )
    (binaries / "venv-python").write_text(f'#!/usr/bin/env bash\necho "venv $*" >>{log}\n')
    for file in binaries.iterdir():
        file.chmod(0o755)
    host.env["PATH"] = f"{binaries}:{host.env['PATH']}"
    shutil.rmtree(host.fit / "venv")
    for _ in range(2):
        done = host.run("install", f"echo 'set up' >>{log}")
        assert done.returncode == 0, done.stderr
    source = f"{host.fit}/source"
    locks = f"--requirement {source}/requirements.lock --requirement {source}/requirements-tpu.lock"
    pip = [
        f"venv -m pip install --quiet --require-hashes {locks}",
        f"venv -m pip install --quiet --no-deps --no-build-isolation --editable {source}",
    ]
    assert log.read_text().splitlines() == [
        "set up",
        "1 python3 -m pip install --quiet --user uv==0.13.9",
        f" python3 -m uv venv --quiet --seed --python 3.12 {host.fit}/venv",
        *pip,
        "set up",
        *pip,
    ]


def test_failed_setup_stops_the_installation(host: Host):
    assert host.run("install", "false; true").returncode != 0
    assert not host.record.exists()
