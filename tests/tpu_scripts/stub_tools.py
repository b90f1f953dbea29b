"""Stubs of the cloud tools, put first on the PATH of a script: a stub records its argv and answers as it is told."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "tpu_scripts"
TPU = {
    "FIT_NAME": "my-run",
    "FIT_PROJECT": "my-project",
    "FIT_ZONE": "us-east5-a",
    "FIT_ACCELERATOR": "v5litepod-16",
    "FIT_RUNTIME": "v2-alpha-tpuv5-lite",
    "FIT_RUN_DIR": "/mnt/runs/my-run",
}
JOBSET = {
    "FIT_NAME": "my-run",
    "FIT_ACCELERATOR": "tpu-v5-lite-podslice",
    "FIT_IMAGE": "repository/fit_jax:1",
    "FIT_TOPOLOGY": "4x4",
    "FIT_CLAIM": "runs",
    "FIT_RUN_DIR": "/storage/runs/a",
}
SLURM = {"FIT_NAME": "my run", "FIT_VENV": "/shared/my venv", "FIT_RUN_DIR": "/shared/runs/a", "FIT_NODES": "2"}
PLACE = ["--project=my-project", "--zone=us-east5-a"]
RESOURCE = ["gcloud", "compute", "tpus", "queued-resources"]

STUB = f"""#!{sys.executable} -IS
import json, os, sys
from pathlib import Path

folder = Path(os.environ["STUBS"])
argv = [Path(sys.argv[0]).name, *sys.argv[1:]]
with open(folder / "calls.jsonl", "a") as file:
    file.write(json.dumps(argv) + "\\n")
if argv[0] == "kubectl":
    (folder / "stdin").write_text(sys.stdin.read())
answers = json.loads((folder / "answers.json").read_text())
for part, queue in answers.items():
    if part in " ".join(argv):
        text, status = queue[0]
        if len(queue) > 1:
            del queue[0]
        (folder / "answers.json").write_text(json.dumps(answers))
        print(text)
        sys.exit(status)
"""


@dataclass
class Stubs:
    """What the stubs were called with, and what they are to answer."""

    folder: Path
    # Part of a command line -> the answers (text, exit status) to the calls that contain it, the last one for ever.
    answers: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def run(self, script: str, *arguments: str, env: dict[str, str] = TPU) -> subprocess.CompletedProcess:
        """Runs a script of tpu_scripts with `env` and nothing else of the fit variables of this machine."""
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("FIT_", "SBATCH_"))}
        return subprocess.run(
            ["bash", SCRIPTS / script, *arguments],
            env={**clean, **env, "STUBS": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def stdin(self) -> str:
        return (self.folder / "stdin").read_text()

    @classmethod
    def install(cls, folder: Path) -> "Stubs":
        """Puts the stubs into `folder`/bin."""
        binaries = folder / "bin"
        binaries.mkdir(parents=True)
        for name in ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "git", "sleep"):
            (binaries / name).write_text(STUB)
            (binaries / name).chmod(0o755)
        return cls(folder)
