"""The scripts' exact commands, their quoting, and what they refuse."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .stub_tools import JOBSET, PLACE, RESOURCE, SCRIPTS, SLURM, TPU, Stubs

ROOT = SCRIPTS.parent
AWKWARD = 'it\'s "two"  words; $HOME `id` * \\ é'
TRAIN = ["--", "--config", "configs/demo.yaml"]
# Every script that a person runs: its arguments and all variables it needs.
SCRIPT_CASES = {
    "create.sh": ([], TPU),
    "install.sh": ([], TPU),
    "launch.sh": (TRAIN, TPU),
    "logs.sh": ([], TPU),
    "watch.sh": (TRAIN, TPU),
    "fetch.sh": (["no-such-folder"], TPU),
    "delete.sh": ([], TPU),
    "jobset.sh": (TRAIN, JOBSET),
    "slurm.sh": (TRAIN, SLURM),
}
NEEDED = {
    "create.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE", "FIT_ACCELERATOR", "FIT_RUNTIME"],
    "install.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE"],
    "launch.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE", "FIT_RUN_DIR"],
    "logs.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE"],
    "watch.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE", "FIT_RUN_DIR", "FIT_ACCELERATOR", "FIT_RUNTIME"],
    "fetch.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE", "FIT_RUN_DIR"],
    "delete.sh": ["FIT_NAME", "FIT_PROJECT", "FIT_ZONE"],
    "jobset.sh": ["FIT_NAME", "FIT_IMAGE", "FIT_ACCELERATOR", "FIT_TOPOLOGY", "FIT_CLAIM", "FIT_RUN_DIR"],
    "slurm.sh": ["FIT_NAME", "FIT_VENV", "FIT_RUN_DIR"],
}


def ssh(command: str, node: str = "all", worker: str = "all") -> list[str]:
    return [*RESOURCE, "ssh", "my-run", *PLACE, f"--node={node}", f"--worker={worker}", f"--command={command}"]


def refusal(done: subprocess.CompletedProcess) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_every_script_is_covered():
    assert set(SCRIPT_CASES) == {p.name for p in SCRIPTS.glob("*.sh")} - {"common.sh", "worker.sh"}


def test_shellcheck():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    assert shellcheck, "shellcheck is missing; install the extra `test`"
    files = sorted([*SCRIPTS.glob("*.sh"), *SCRIPTS.glob("*.sbatch")])
    done = subprocess.run([shellcheck, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPT_CASES)
def test_help_needs_no_variable(stubs: Stubs, script: str):
    done = stubs.run(script, "--help", env={})
    assert done.returncode == 0
    assert done.stdout.startswith(script)
    for name in NEEDED[script]:
        assert name in done.stdout or "all variables of create.sh" in done.stdout
    assert stubs.calls == []


@pytest.mark.parametrize(("script", "name"), [(s, n) for s, names in NEEDED.items() for n in names])
def test_missing_variable(stubs: Stubs, script: str, name: str):
    arguments, env = SCRIPT_CASES[script]
    line = refusal(stubs.run(script, *arguments, env={**env, name: ""}))
    assert line.startswith(f"error: {name} is not set")
    assert f"export {name}=" in line
    assert stubs.calls == []


@pytest.mark.parametrize("script", SCRIPT_CASES)
def test_unknown_flag(stubs: Stubs, script: str):
    _, env = SCRIPT_CASES[script]
    line = refusal(stubs.run(script, "--forse", env=env))
    assert "--forse" in line
    assert f"{script} --help" in line
    assert stubs.calls == []


@pytest.mark.parametrize(
    ("script", "name", "value"),
    [
        ("create.sh", "FIT_SLICES", "two"),
        ("create.sh", "FIT_CAPACITY", "cheap"),
        ("launch.sh", "FIT_RUN_DIR", "runs/demo"),
        ("launch.sh", "FIT_RUN_DIR", "gs://bucket/run"),
        ("watch.sh", "FIT_RUN_DIR", "gs://bucket/run"),
        ("jobset.sh", "FIT_RUN_DIR", "gs:/bucket/run"),
        ("slurm.sh", "FIT_RUN_DIR", "s3://bucket/run"),
        ("watch.sh", "FIT_POLL_SECONDS", "0"),
        ("watch.sh", "FIT_CAPACITY", "cheap"),
        ("jobset.sh", "FIT_TOPOLOGY", "a[$(id)]"),
        ("jobset.sh", "FIT_CHIPS_PER_HOST", "3"),
        ("jobset.sh", "FIT_RUN_DIR", "/tmp/run"),
        ("slurm.sh", "FIT_NODES", "-1"),
    ],
)
def test_wrong_value(stubs: Stubs, script: str, name: str, value: str):
    arguments, env = SCRIPT_CASES[script]
    line = refusal(stubs.run(script, *arguments, env={**env, name: value}))
    assert line.startswith(f"error: {name}=")
    assert stubs.calls == []


@pytest.mark.parametrize("script", ["launch.sh", "watch.sh", "jobset.sh", "slurm.sh"])
@pytest.mark.parametrize("arguments", [[], ["--"]])
def test_training_arguments_are_needed(stubs: Stubs, script: str, arguments: list[str]):
    assert "-- --config" in refusal(stubs.run(script, *arguments, env=SCRIPT_CASES[script][1]))


@pytest.mark.parametrize("script", [s for s in SCRIPT_CASES if s not in ("watch.sh", "jobset.sh")])
def test_dry_run_prints_what_a_run_calls(stubs: Stubs, script: str):
    arguments, env = SCRIPT_CASES[script]
    env = {**env, "FIT_NAME": AWKWARD}
    printed = stubs.run(script, "--dry-run", *arguments, env=env)
    assert printed.returncode == 0, printed.stderr
    assert stubs.calls == []
    commands = [shlex.split(line) for line in printed.stdout.splitlines()]
    outside = [c for c in commands if c[0] in ("gcloud", "sbatch", "git")]
    if script != "fetch.sh":  # the stub copies nothing, so the move at the end of a real fetch fails
        assert stubs.run(script, *arguments, env=env).returncode == 0
        assert stubs.calls == outside
    assert any(AWKWARD in word for command in outside for word in command)


@pytest.mark.parametrize("script", ["create.sh", "install.sh", "launch.sh", "logs.sh", "delete.sh", "slurm.sh"])
def test_failure_of_the_tool_is_the_exit_status(stubs: Stubs, script: str):
    arguments, env = SCRIPT_CASES[script]
    stubs.answers = {"gcloud": [("", 37)], "sbatch": [("", 37)]}
    assert stubs.run(script, *arguments, env=env).returncode == 37
    assert sum(call[0] != "git" for call in stubs.calls) == 1


def test_create(stubs: Stubs):
    stubs.run("create.sh")
    machine = ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"]
    assert stubs.calls == [[*RESOURCE, "create", "my-run", *PLACE, *machine, "--node-id=my-run"]]


def test_create_spot_slices_and_disk(stubs: Stubs):
    stubs.run(
        "create.sh", env={**TPU, "FIT_SLICES": "2", "FIT_CAPACITY": "spot", "FIT_DATA_DISK": "projects/p/disks/d"}
    )
    assert stubs.calls[0][9:] == [
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--node-count=2",
        "--node-prefix=my-run",
        "--spot",
        "--data-disk=source=projects/p/disks/d,mode=read-write",
    ]


def test_install(stubs: Stubs):
    setup = "sudo mount 10.0.0.2:/share /mnt/runs && echo 'a  b'"
    stubs.run("install.sh", env={**TPU, "FIT_SETUP": setup})
    archive = f"{ROOT}/build/fit_jax-my-run.tar.gz"
    git, copy, install = stubs.calls
    assert git == ["git", "-C", f"{ROOT}", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"]
    assert copy == [*RESOURCE, "scp", archive, "my-run:fit_jax.tar.gz", *PLACE, "--node=all", "--worker=all"]
    command = install[-1].removeprefix("--command=")
    assert install == ssh(command)
    assert command.startswith("rm -rf fit_jax/source && mkdir -p fit_jax/source && tar -xzf fit_jax.tar.gz")
    assert shlex.split(command)[-4:] == ["bash", "fit_jax/source/tpu_scripts/worker.sh", "install", setup]


def test_launch_keeps_awkward_arguments(stubs: Stubs):
    arguments = ["--config", "my configs/a.yaml", "--task.name", AWKWARD, "--tokenizer.path", ""]
    stubs.run("launch.sh", "--", *arguments, env={**TPU, "FIT_SLICES": "2", "FIT_RUN_DIR": "/mnt/my runs/a"})
    command = stubs.calls[0][-1].removeprefix("--command=")
    assert stubs.calls == [ssh(command)]
    seen = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True).stdout
    worker = ["bash", "fit_jax/source/tpu_scripts/worker.sh", "launch"]
    assert seen.split("\0")[:-1] == [*worker, *arguments, "--run_dir", "/mnt/my runs/a", "--mesh.slices", "2"]


@pytest.mark.parametrize(("flags", "node", "worker"), [([], "0", "0"), (["--slice", "1", "--worker", "3"], "1", "3")])
def test_logs(stubs: Stubs, flags: list[str], node: str, worker: str):
    stubs.run("logs.sh", *flags)
    assert stubs.calls == [ssh("tail -n 200 -F fit_jax/train.log", node, worker)]


def test_logs_refuses_a_worker_that_is_no_number(stubs: Stubs):
    assert "--worker 0" in refusal(stubs.run("logs.sh", "--worker", "all"))


@pytest.mark.parametrize(("flags", "quiet"), [([], []), (["--yes"], ["--quiet"])])
def test_delete(stubs: Stubs, flags: list[str], quiet: list[str]):
    stubs.run("delete.sh", *flags)
    assert stubs.calls == [[*RESOURCE, "delete", *quiet, "my-run", *PLACE, "--force"]]


def test_fetch_through_the_first_host(stubs: Stubs, tmp_path: Path):
    folder = tmp_path / "my run"
    printed = stubs.run("fetch.sh", "--dry-run", f"{folder}").stdout
    copy = ["scp", "--recurse", "my-run:/mnt/runs/my-run", f"{folder}.incomplete", *PLACE, "--node=0", "--worker=0"]
    assert [shlex.split(line) for line in printed.splitlines()] == [
        ["rm", "-rf", "--", f"{folder}.incomplete"],
        ["mkdir", "-p", "--", f"{tmp_path}"],
        [*RESOURCE, *copy],
        ["mv", "--", f"{folder}.incomplete", f"{folder}"],
    ]


def test_fetch_from_a_bucket(stubs: Stubs, tmp_path: Path):
    folder = tmp_path / "a" / "run"
    assert stubs.run("fetch.sh", f"{folder}", env={**TPU, "FIT_RUN_DIR": "gs://bucket/a b"}).returncode == 0
    part = f"{folder}.incomplete"
    assert stubs.calls == [
        ["gcloud", "storage", "rsync", "--recursive", "--project=my-project", "gs://bucket/a b", part]
    ]
    assert folder.is_dir()
    assert not Path(part).exists()


def test_fetch_that_fails_leaves_no_folder(stubs: Stubs, tmp_path: Path):
    stubs.answers = {"rsync": [("", 5)]}
    done = stubs.run("fetch.sh", f"{tmp_path / 'run'}", env={**TPU, "FIT_RUN_DIR": "gs://bucket/a"})
    assert done.returncode == 5
    assert not (tmp_path / "run").exists()


def test_fetch_refuses_a_folder_that_exists(stubs: Stubs, tmp_path: Path):
    assert "name a new folder" in refusal(stubs.run("fetch.sh", f"{tmp_path}"))
    assert "FOLDER" in refusal(stubs.run("fetch.sh"))
