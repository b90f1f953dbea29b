"""The Kubernetes and SLURM siblings: what is submitted, and how the job treats a stop request."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from .stub_tools import JOBSET, SCRIPTS, SLURM, Stubs

AWKWARD = 'it\'s "two" words: $HOME $(HOME) # {a} \\n @NAME@ é\nline\ttab'


def submit(stubs: Stubs, *arguments: str, **changes: str) -> dict:
    done = stubs.run("jobset.sh", "--", *arguments, env={**JOBSET, **changes})
    assert done.returncode == 0, done.stderr
    assert stubs.calls == [["kubectl", "create", "--filename=-"]]
    return yaml.safe_load(stubs.stdin)


def test_jobset(stubs: Stubs):
    jobset = submit(stubs, "--config", "a.yaml", FIT_SLICES="2", FIT_RESTARTS="7")
    assert jobset["metadata"]["name"] == "my-run"
    assert jobset["spec"]["failurePolicy"] == {"maxRestarts": 7}
    (slices,) = jobset["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    job = slices["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (4, 4, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert "tolerations" not in pod
    (container,) = pod["containers"]
    assert container["image"] == "repository/fit_jax:1"
    assert container["args"] == ["--config", "a.yaml", "--run_dir", "/storage/runs/a", "--mesh.slices", "2"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "runs"}


def test_jobset_spot_on_single_hosts(stubs: Stubs):
    jobset = submit(stubs, "--config", "a", FIT_CAPACITY="spot", FIT_TOPOLOGY="2x4", FIT_CHIPS_PER_HOST="8")
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == 1
    assert job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert job["template"]["spec"]["tolerations"][0]["key"] == "cloud.google.com/gke-spot"


def test_jobset_keeps_awkward_values(stubs: Stubs):
    jobset = submit(stubs, "--task.name", AWKWARD, FIT_NAME=AWKWARD, FIT_CLAIM="@CHIPS@")
    assert jobset["metadata"]["name"] == AWKWARD
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "@CHIPS@"
    # Kubernetes reads $$ in arguments as $.
    assert pod["containers"][0]["args"][1].replace("$$", "$") == AWKWARD
    assert pod["containers"][0]["args"][1].count("$") == 2 * AWKWARD.count("$")


def test_jobset_dry_run_prints_the_command_with_its_input(stubs: Stubs):
    printed = stubs.run("jobset.sh", "--dry-run", "--", "--task.name", AWKWARD, env=JOBSET).stdout
    assert stubs.calls == []
    stubs.run("jobset.sh", "--", "--task.name", AWKWARD, env=JOBSET)
    first, *manifest, last = printed.splitlines(keepends=True)
    assert first == "kubectl create --filename=- <<'END_OF_JOBSET'\n"
    assert last == "END_OF_JOBSET\n"
    assert yaml.safe_load("".join(manifest)) == yaml.safe_load(stubs.stdin)


def test_failure_of_kubectl_is_the_exit_status(stubs: Stubs):
    stubs.answers = {"kubectl": [("", 37)]}
    assert stubs.run("jobset.sh", "--", "--config", "a", env=JOBSET).returncode == 37


def test_slurm(stubs: Stubs):
    done = stubs.run("slurm.sh", "--", "--task.name", AWKWARD, env={**SLURM, "FIT_GPUS_PER_NODE": "4"})
    assert done.returncode == 0, done.stderr
    assert stubs.calls == [
        [
            "sbatch",
            "--job-name=my run",
            "--nodes=2",
            "--ntasks-per-node=4",
            "--gpus-per-node=4",
            "--requeue",
            "--open-mode=append",
            "--signal=B:TERM@300",
            f"{SCRIPTS}/slurm.sbatch",
            f"{SCRIPTS.parent}",
            "/shared/my venv/bin/python",
            "--task.name",
            AWKWARD,
            "--run_dir",
            "/shared/runs/a",
        ]
    ]


TRAINING = """#!/usr/bin/env bash
trap 'touch "$READY.saved"; exit 0' TERM
printf '%s\\0' "$PWD" "${0##*/}" "$@" >"$READY.part"
mv "$READY.part" "$READY"
for _ in {1..500}; do sleep 0.02; done
"""


class Job:
    """A job script, run with training in the place of `name` that waits for a stop request and then ends with 0."""

    def __init__(self, stubs: Stubs, folder: Path, name: str, command: list[str]):
        binaries = stubs.folder / "bin"
        for tool in (name, "sleep"):
            (binaries / tool).unlink(missing_ok=True)
        (binaries / name).write_text(TRAINING)
        (binaries / name).chmod(0o755)
        (stubs.folder / "answers.json").write_text("{}")
        self.ready = folder / "ready"
        self.process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "PATH": f"{binaries}:{os.environ['PATH']}",
                "STUBS": str(stubs.folder),
                "READY": str(self.ready),
                "SLURM_JOB_ID": "17",
            },
        )

    def stop(self) -> int:
        """Sends a stop request once training runs, and waits for the end."""
        end = time.monotonic() + 60
        while not self.ready.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    @property
    def saved(self) -> bool:
        return Path(f"{self.ready}.saved").exists()


def job_command(stubs: Stubs, sibling: str, folder: Path) -> list[str]:
    if sibling == "srun":
        return ["bash", f"{SCRIPTS}/slurm.sbatch", f"{folder}", "/shared/my venv/bin/python", "--task.name", "a b"]
    template = stubs.run("jobset.sh", "--dry-run", "--", "--task.name", "a b", env=JOBSET).stdout.splitlines()[1:-1]
    pod = yaml.safe_load("\n".join(template))["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return [*pod["containers"][0]["command"], *pod["containers"][0]["args"]]


@pytest.mark.parametrize(("sibling", "status"), [("srun", 0), ("python", 143)])
def test_stop_request_lets_training_save_and_the_job_start_again(
    stubs: Stubs, tmp_path: Path, sibling: str, status: int
):
    job = Job(stubs, tmp_path, sibling, job_command(stubs, sibling, tmp_path))
    assert job.stop() == status
    assert job.saved
    assert stubs.calls == ([["scontrol", "requeue", "17"]] if sibling == "srun" else [])
    words = job.ready.read_text().split("\0")
    assert words[words.index("--task.name") + 1] == "a b"
    if sibling == "srun":
        python = ["--kill-on-bad-exit=1", "/shared/my venv/bin/python", "-m", "fit_jax.train"]
        assert words[:6] == [f"{tmp_path}", "srun", *python]


@pytest.mark.parametrize("sibling", ["srun", "python"])
@pytest.mark.parametrize("status", [0, 3])
def test_exit_status_of_training_is_that_of_the_job(stubs: Stubs, tmp_path: Path, sibling: str, status: int):
    command = job_command(stubs, sibling, tmp_path)
    (stubs.folder / "bin" / sibling).unlink(missing_ok=True)
    (stubs.folder / "bin" / sibling).write_text(f"#!/usr/bin/env bash\nexit {status}\n")
    (stubs.folder / "bin" / sibling).chmod(0o755)
    path = f"{stubs.folder / 'bin'}:{os.environ['PATH']}"
    assert subprocess.run(command, env={**os.environ, "PATH": path}).returncode == status
