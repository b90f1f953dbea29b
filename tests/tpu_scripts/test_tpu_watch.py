"""The watch on simulated sequences of TPU states and of what the hosts say of training."""

import shlex

import pytest

from .stub_tools import PLACE, RESOURCE, TPU, Stubs

TRAIN = ["--", "--config", "configs/a b.yaml"]
# Parts of the command lines by which a call is told apart.
DESCRIBE, STATUS, LAUNCH, INSTALL = "--format=value(state.state)", "worker.sh status", "worker.sh launch", "install ''"
PARTS = {
    "describe": DESCRIBE,
    "status": STATUS,
    "launch": LAUNCH,
    "install": INSTALL,
    "delete": "queued-resources delete",
    "create": "queued-resources create",
}
RUNNING, ABSENT, DONE = "fit_jax: running", "fit_jax: absent", "fit_jax: exited 0"


def script(*texts: str) -> list[tuple[str, int]]:
    return [(text, 0) for text in texts]


def steps(stubs: Stubs, leave_out: tuple[str, ...] = ("describe", "status")) -> list[str]:
    """What the watch did, in order, apart from looking and sleeping."""
    lines = [" ".join(call) for call in stubs.calls]
    names = [name for line in lines for name, part in PARTS.items() if part in line]
    return [name for name in names if name not in leave_out]


def test_waits_installs_launches_and_ends_with_training(stubs: Stubs):
    stubs.answers = {
        DESCRIBE: script("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
        STATUS: script(ABSENT, ABSENT, RUNNING, RUNNING, DONE, DONE),
    }
    done = stubs.run("watch.sh", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert steps(stubs) == ["install", "launch"]
    launch = next(call for call in stubs.calls if LAUNCH in call[-1])
    assert launch[:-1] == [*RESOURCE, "ssh", "my-run", *PLACE, "--node=all", "--worker=all"]
    assert shlex.split(launch[-1].removeprefix("--command="))[3:5] == ["--config", "configs/a b.yaml"]
    assert ["sleep", "60"] in stubs.calls


@pytest.mark.parametrize("state", ["SUSPENDED", "PREEMPTED"])
def test_preemption(stubs: Stubs, state: str):
    stubs.answers = {
        DESCRIBE: script("ACTIVE", "ACTIVE", "SUSPENDING", state, "PROVISIONING", "ACTIVE"),
        STATUS: script(RUNNING, RUNNING, ABSENT, ABSENT, RUNNING, DONE, DONE),
    }
    done = stubs.run("watch.sh", *TRAIN, env={**TPU, "FIT_CAPACITY": "spot"})
    assert done.returncode == 0, done.stdout
    assert steps(stubs) == ["delete", "create", "install", "launch"]
    delete, create = (next(c for c in stubs.calls if c[4:5] == [name]) for name in ("delete", "create"))
    assert delete == [*RESOURCE, "delete", "--quiet", "my-run", *PLACE, "--force"]
    assert create[-2:] == ["--node-id=my-run", "--spot"]


def test_host_that_ends_while_preemption_is_under_way_is_not_the_end(stubs: Stubs):
    """On a stop request training ends with status 0, some seconds before the TPU stops to be active."""
    stubs.answers = {
        DESCRIBE: script("ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE"),
        STATUS: script(RUNNING, DONE, ABSENT, ABSENT, DONE, DONE),
    }
    assert stubs.run("watch.sh", *TRAIN).returncode == 0
    assert steps(stubs) == ["delete", "create", "install", "launch"]


def test_host_that_restarted_is_launched_again_once_the_others_ended(stubs: Stubs):
    other = "fit_jax: exited 1"
    stubs.answers = {
        DESCRIBE: script("ACTIVE"),
        STATUS: script(f"{RUNNING}\n{ABSENT}", f"{RUNNING}\n{ABSENT}", *[f"{other}\n{ABSENT}"] * 2, DONE, DONE),
    }
    assert stubs.run("watch.sh", *TRAIN).returncode == 0
    assert steps(stubs) == ["install", "launch"]


def test_failed_training_is_not_started_again(stubs: Stubs):
    stubs.answers = {DESCRIBE: script("ACTIVE"), STATUS: script(f"{DONE}\nfit_jax: exited 3\n{DONE}")}
    done = stubs.run("watch.sh", *TRAIN)
    assert done.returncode == 3
    assert "exit status 3" in done.stdout
    assert steps(stubs) == []


def test_every_slice_is_asked(stubs: Stubs):
    stubs.answers = {DESCRIBE: script("ACTIVE"), "--node=1": script(RUNNING, RUNNING, DONE), STATUS: script(DONE)}
    assert stubs.run("watch.sh", *TRAIN, env={**TPU, "FIT_SLICES": "2"}).returncode == 0
    nodes = [call[8] for call in stubs.calls if STATUS in call[-1]]
    assert nodes == ["--node=0", "--node=1"] * 4


def test_slice_that_does_not_answer_is_no_finished_slice(stubs: Stubs):
    stubs.answers = {
        DESCRIBE: script("ACTIVE"),
        "--node=1": script("", "", DONE),
        STATUS: script(DONE),
    }
    done = stubs.run("watch.sh", *TRAIN, env={**TPU, "FIT_SLICES": "2"})
    assert done.returncode == 0
    assert done.stdout.count("slice 1 does not answer") == 2


def test_passing_failures_are_outlived(stubs: Stubs):
    stubs.answers = {
        DESCRIBE: [("", 1), ("ACTIVE", 0)],
        INSTALL: [("", 255), ("", 0)],
        STATUS: script(*[ABSENT] * 4, DONE, DONE),
    }
    assert stubs.run("watch.sh", *TRAIN).returncode == 0
    assert steps(stubs) == ["install", "install", "launch"]


def test_failed_creation_is_tried_again_without_a_second_deletion(stubs: Stubs):
    stubs.answers = {
        "queued-resources create": [("", 1), ("", 1), ("", 0)],
        DESCRIBE: script("SUSPENDED", "ACTIVE"),
        STATUS: script(DONE),
    }
    assert stubs.run("watch.sh", *TRAIN).returncode == 0
    assert steps(stubs) == ["delete", "create", "create", "create"]


def test_lasting_failure_ends_with_the_status_of_gcloud(stubs: Stubs):
    stubs.answers = {DESCRIBE: [("", 41)]}
    assert stubs.run("watch.sh", *TRAIN).returncode == 41
    assert steps(stubs, leave_out=()) == ["describe"] * 10


def test_failed_request_ends_the_watch(stubs: Stubs):
    stubs.answers = {DESCRIBE: script("FAILED")}
    done = stubs.run("watch.sh", *TRAIN)
    assert done.returncode == 1
    assert "queued-resources describe my-run --project=my-project" in done.stdout
    assert steps(stubs) == []


def test_dry_run_prints_every_command(stubs: Stubs):
    done = stubs.run("watch.sh", "--dry-run", *TRAIN, env={**TPU, "FIT_SLICES": "2"})
    assert done.returncode == 0, done.stderr
    assert stubs.calls == []
    commands = [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("#")]
    named = [name for c in commands for name, part in PARTS.items() if part in " ".join(c)]
    assert named == ["describe", "status", "status", "install", "launch", "delete", "create"]
