"""Checkpoints by themselves: what is kept, what is told of damaged ones and of those of another model."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from fit_jax.config import MeshConfig, TrainConfig
from fit_jax.errors import InputError, RunFailed
from fit_jax.models.lora_config import LoraConfig
from fit_jax.parallel import processes
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs.run import Run
from fit_jax.runs.trainer import Ending, train
from fit_jax.training import checkpoint_sums
from fit_jax.training.checkpoint import Checkpoints
from fit_jax.training.progress import Progress
from fit_jax.training.state import TrainState
from fit_jax.training.stopping import Stopping


def state(width: int) -> TrainState:
    return TrainState(jnp.int32(0), nnx.State({"kernel": nnx.Param(jnp.ones(width))}), nnx.State({}), ())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three checkpoints, as a process leaves them that is killed after a save and before it deletes older ones."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(folder, keep=5, with_frozen=True, cleans=True)
    for step in (1, 2, 3, 4):
        checkpoints.save(step, state(4), {"step": step}, best=1)
    checkpoints.close()
    return folder


@pytest.mark.parametrize("size", [3, 5])
def test_a_checkpoint_of_another_model_is_not_called_damaged(size, folder):
    checkpoints = Checkpoints(folder, keep=5, with_frozen=True, cleans=False)
    assert checkpoints.restore(4, state(4)).trainable["kernel"].shape == (4,)
    with pytest.raises(
        InputError, match=rf"4 is whole but of another model: .*kernel.* is \(4,\) there and \({size},\)"
    ):
        checkpoints.restore(4, state(size))
    checkpoints.close()


@pytest.fixture
def saved(folder, tmp_path):
    """A copy of two of these checkpoints; whoever changes one changes its listing's time alone."""
    for name in ("1", "4"):
        shutil.copytree(folder / "checkpoints" / name, tmp_path / "checkpoints" / name)
        shutil.copy(folder / "checkpoints" / f"{name}.whole", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def reader(saved, cleans: bool = False) -> Checkpoints:
    return Checkpoints(saved.parent, keep=5, with_frozen=True, cleans=cleans)


def test_every_bit_of_every_file_counts(saved):
    """Orbax and TensorStore read some of these without a word."""
    checkpoints = reader(saved)
    files = [path for part in ("state", "progress") for path in (saved / "4" / part).rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        for at in {0, len(content) // 3, len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            with pytest.raises(InputError, match=rf"4 is damaged: .*{path.name} is not what was written; put it back"):
                checkpoints.restore(4, state(4))
        path.write_bytes(content)
    (saved / "4" / "progress" / "metadata").write_text('{"step": 5}')
    with pytest.raises(InputError, match="progress/metadata is not what was written"):
        checkpoints.progress(4)
    assert checkpoints.progress(1) == {"step": 1}
    checkpoints.close()


def test_the_only_checkpoint_is_not_to_be_moved_away(saved):
    (saved / "4" / "progress" / "metadata").write_text("")
    checkpoints = reader(saved)
    with pytest.raises(InputError, match="put it back from a copy, or move that folder out of the run"):
        checkpoints.progress(4)
    shutil.rmtree(saved / "1")
    with pytest.raises(InputError, match="put it back from a copy, or train again in another run_dir"):
        checkpoints.progress(4)
    checkpoints.close()


def test_files_of_two_checkpoints_that_were_exchanged_are_told(saved):
    for part in ("state", "progress"):
        shutil.rmtree(saved / "4" / part)
        shutil.copytree(saved / "1" / part, saved / "4" / part)
    checkpoints = reader(saved)
    with pytest.raises(InputError, match="4 is damaged"):
        checkpoints.restore(4, state(4))
    with pytest.raises(InputError, match="4 is damaged"):
        checkpoints.progress(4)
    checkpoints.close()


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"state/_METADATA": 3}', '{"../x": [1, "a"]}', "\xff", "{}", '{"state/a": [1, "a"]}']
)
def test_a_damaged_listing_is_told_and_nothing_against_its_checkpoint(saved, text):
    (saved / "4.whole").write_bytes(text.encode("latin-1"))
    checkpoints = reader(saved)
    told = r"4\.whole.*[;,] (or )?put it back from a copy, or move that one file out of the run to go on with the"
    with pytest.raises(InputError, match=told):
        checkpoints.restore(4, state(4))
    checkpoints.close()


def test_a_checkpoint_without_sums_is_read_with_a_line_and_listed_by_who_trains(saved, capfd):
    (saved / "4.whole").unlink()
    checkpoints = reader(saved)
    checkpoints.restore(4, state(4))
    checkpoints.close()
    assert capfd.readouterr().out.count("has no sums: whether it is what was written cannot be checked") == 1
    assert not (saved / "4.whole").exists()
    checkpoints = reader(saved, cleans=True)
    checkpoints.restore(4, state(4))
    checkpoints.close()
    told = capfd.readouterr().out
    assert "checkpoint 4 in" in told
    assert told.count("has no sums") == 1
    assert json.loads((saved / "4.whole").read_text()).keys() > {"progress/metadata"}


def test_a_listing_that_only_some_processes_see_is_told(saved, monkeypatch):
    checkpoints = reader(saved)
    other = [0, 0]  # what the other process counts, of names and of names with their sign turned

    def with_other(table: list[list[int]]) -> list[list[int]]:
        (row,) = table
        return [list(map(max, row, other if len(row) == 2 else [-1]))]

    monkeypatch.setattr(checkpoint_sums, "maximum_over_processes", with_other)
    monkeypatch.setattr(processes, "maximum_over_processes", with_other)
    with pytest.raises(InputError, match=r"4\.whole: not all processes see the same; let all see one folder"):
        checkpoints.restore(4, state(4))
    (saved / "4.whole").unlink()
    checkpoints.restore(4, state(4))  # as without sums
    other[0] = 9
    with pytest.raises(InputError, match=r"4\.whole: not all processes see the same"):
        checkpoints.restore(4, state(4))
    checkpoints.close()


def test_checkpoints_that_only_some_processes_see_are_told(saved, monkeypatch):
    """Or each would wait for the others in another program."""
    seen = []

    def noted(table: list[list[int]]) -> list[list[int]]:
        seen.extend(table)
        return table

    monkeypatch.setattr(processes, "maximum_over_processes", noted)
    reader(saved).close()
    monkeypatch.setattr(processes, "maximum_over_processes", lambda table: [list(map(max, *seen, *table))])
    reader(saved).close()
    shutil.rmtree(saved / "4")
    with pytest.raises(InputError, match="checkpoints: not all processes see the same checkpoints; let all"):
        reader(saved)


def test_a_listing_stands_there_before_its_checkpoint_and_goes_after_it(saved, monkeypatch):
    """So that whenever the process is killed, no checkpoint is without one."""
    (saved / "7.whole").write_text("{}")  # of a save that was cut off
    seen = []
    rename = os.rename

    def noted(source, target, **_):
        seen.append((Path(target).name, Path(f"{target}.whole").exists()))
        rename(source, target)

    checkpoints = reader(saved, cleans=True)
    assert not (saved / "7.whole").exists()
    monkeypatch.setattr(os, "rename", noted)
    checkpoints.save(7, state(4), {}, best=None)
    checkpoints.wait()
    checkpoints.tidy(best=None)
    checkpoints.close()
    assert ("7", True) in seen, seen


def test_saving_small_replicated_arrays_compiles_nothing(tmp_path):
    everywhere = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec())
    placed = jax.device_put(state(48), everywhere)
    compiled = []

    def listen(event: str, seconds: float, **_):
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    checkpoints = Checkpoints(tmp_path, keep=1, with_frozen=True, cleans=True)
    checkpoints.save(1, placed, {}, best=None)
    checkpoints.close()
    jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled


def test_checkpoints_too_many_are_deleted_at_the_next_start(folder):
    checkpoints = Checkpoints(folder, keep=1, with_frozen=True, cleans=True)
    checkpoints.tidy(best=1)
    checkpoints.close()
    assert checkpoints.steps() == [1, 4]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["1", "1.whole", "4", "4.whole"]


def test_a_finished_run_that_starts_again_keeps_its_best(tmp_path, smallest, task, encoder, config):
    checkpoints = Checkpoints(tmp_path, keep=9, with_frozen=True, cleans=True)
    for step, finished in ((2, None), (4, None), (6, "steps")):
        progress = Progress(Stopping("loss", None, 0.5, 2), step=step, finished=finished)
        checkpoints.save(step, state(4), progress.to_json(), best=2)
    checkpoints.close()
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    config = replace(config, train=TrainConfig(keep=1, checkpoint_every=2))
    assert train(Run(config, tmp_path, task, encoder, mesh, smallest, LoraConfig())) is Ending.ALREADY
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "2.whole", "6", "6.whole"]


def test_a_step_that_orbax_did_not_save_is_an_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2, with_frozen=True, cleans=True)
    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", lambda *_, **__: False)
    with pytest.raises(RunFailed, match=r"checkpoint 3 in .* was not saved; start the same command again"):
        checkpoints.save(3, state(4), {}, best=None)
    checkpoints.close()


def test_a_save_keeps_the_newest_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=0, with_frozen=True, cleans=True)  # the newest is kept all the same
    for step, best in ((1, 1), (2, 1), (3, 2)):
        checkpoints.save(step, state(4), {}, best)
        checkpoints.wait()
    checkpoints.close()
    assert checkpoints.steps() == [2, 3]


def test_a_checkpoint_that_was_not_due_goes_when_a_newer_one_is_there(tmp_path):
    """So that a run which was told to stop after step 5 ends with the same checkpoints as one that was not."""
    due = lambda step: step % 2 == 0  # noqa: E731
    checkpoints = Checkpoints(tmp_path, keep=2, with_frozen=True, cleans=True, due=due)
    left = {}
    for step in (2, 4, 5, 6):
        checkpoints.save(step, state(4), {}, best=None)
        checkpoints.wait()
        left[step] = checkpoints.steps()
    checkpoints.close()
    assert left == {2: [2], 4: [2, 4], 5: [4, 5], 6: [4, 6]}
