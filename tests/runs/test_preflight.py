"""What would fail hours later is told before the first step."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from fit_jax.config import MeshConfig, TrainConfig
from fit_jax.errors import InputError
from fit_jax.focus.prompts import PromptEncoder
from fit_jax.models.config import DecoderConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.runs import preflight
from fit_jax.runs.evaluating import evaluate_run
from fit_jax.runs.preflight import check_batch, check_disk, check_examples, check_program, check_state, host_memory
from fit_jax.runs.run import set_up, starting_state
from fit_jax.runs.trainer import train

MODEL = DecoderConfig(vocab_size=300, layers=2, width=32, feed_forward=48, heads=4, kv_heads=2)


@pytest.fixture
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:2])


def with_example(task, split, **changes):
    """The task with the first example of a split changed."""
    examples = list(task.splits[split].examples)
    examples[0] = replace(examples[0], **changes)
    return replace(task, splits={**task.splits, split: replace(task.splits[split], examples=examples)})


def test_examples_that_can_be_evaluated_pass(task, encoder, config):
    before = encoder.cuts, encoder.mismatches
    check_examples(task, encoder, config)
    assert (encoder.cuts, encoder.mismatches) == before


def test_what_is_checked_is_what_will_be_asked(task, config):
    """The validation by the run's seed, the evaluation by its own."""

    def asked(config):
        found = []
        check_examples(task, SimpleNamespace(encode=lambda examples, asked: found.extend(asked)), config)
        return found

    own = replace(config, evaluation=replace(config.evaluation, seed=7))
    runs, other, found = map(asked, (config, replace(config, seed=7), own))
    validated = config.evaluation.validation_examples
    assert runs != other
    assert found == [*runs[:validated], *other[validated:]]


@pytest.mark.parametrize("split", ["validation", "low"])
def test_an_example_that_does_not_fit_is_told(task, encoder, config, split):
    short = PromptEncoder(encoder.tokenizer, task.text, sequence_length=300)
    longer = with_example(task, split, slots={"text": "word " * 400})
    with pytest.raises(InputError, match=rf"split {split}: example .* more than the 300 of a row"):
        check_examples(longer, short, config)


def test_an_example_that_does_not_fit_with_its_decoy_is_told(task, encoder, config):
    for length in range(16, 400):  # to the shortest row that holds every example as it is
        short = PromptEncoder(encoder.tokenizer, task.text, sequence_length=length)
        try:
            check_examples(task, short, config)
            break
        except InputError:
            pass
    decoys = replace(config, evaluation=replace(config.evaluation, decoys=True))
    with pytest.raises(InputError, match=rf"more than the {length} of a row"):
        check_examples(task, short, decoys)


def test_half_characters_are_told_wherever_they_stand(task, encoder, config):
    example = task.splits["iid"].examples[0]
    feature, value = next(iter(example.spurious.items()))
    for changes in (
        {"uid": "a\ud800"},
        {"slots": {"text": "a\udfff"}},
        {"spurious": {feature: value._replace(value="\ud800")}},
        {"slices": {"kind": "\ud800"}},
    ):
        with pytest.raises(InputError, match=r"split iid, example .* holds half a character") as error:
            check_examples(with_example(task, "iid", **changes), encoder, config)
        str(error.value).encode()


def test_a_batch_beyond_the_memory_is_told_at_once(config, mesh):
    check_batch(MODEL, config, mesh)
    large = replace(config, train=TrainConfig(batch_size=2**20))
    with pytest.raises(InputError, match=r"needs at least .* [GT]iB of memory, this machine has .*; try a train"):
        check_batch(MODEL, large, mesh)


def test_a_batch_of_an_evaluation_beyond_the_memory_is_told_before_anything_is_made(config, tmp_path, monkeypatch):
    large = replace(config.evaluation, batch_size=2**20)
    eight = replace(config.train, batch_size=8)  # one row for each device
    run = set_up(replace(config, run_dir=str(tmp_path), evaluation=large, train=eight), trains=True)
    monkeypatch.setattr("fit_jax.training.state.jax.jit", lambda *a, **k: pytest.fail("the state is made"))
    monkeypatch.setattr(preflight, "host_memory", lambda: 2**29)
    for command in (train, evaluate_run):
        with pytest.raises(InputError, match=r"^evaluation.batch_size 1048576: a batch needs at least .*; try an eval"):
            command(run)


def test_parameters_that_do_not_fit_are_told_before_the_batch(config, tmp_path, monkeypatch):
    eight = replace(config.train, batch_size=8)  # one row for each device
    run = set_up(replace(config, run_dir=str(tmp_path), train=eight), trains=True)
    monkeypatch.setattr(preflight, "host_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"^the model's parameters"):
        train(run)


def test_parameters_beyond_the_memory_are_told_before_they_are_made(mesh, monkeypatch):
    """Each device has its shards of them; those of a CPU are all the machine's."""
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
    state = {"kernel": jax.ShapeDtypeStruct((100, 8), jnp.bfloat16, sharding=split)}
    monkeypatch.setattr(preflight, "host_memory", lambda: 1600)
    check_state(state, mesh)
    monkeypatch.setattr(preflight, "host_memory", lambda: 1599)
    with pytest.raises(
        InputError, match=r"take 1.56 KiB of memory, this machine has 1.56 KiB free; take a smaller model"
    ):
        check_state(state, mesh)


def test_a_run_without_room_for_its_model_makes_nothing(config, tmp_path, monkeypatch):
    run = set_up(replace(config, run_dir=str(tmp_path)), trains=True)
    monkeypatch.setattr("fit_jax.training.state.jax.jit", lambda *a, **k: pytest.fail("the state is made"))
    monkeypatch.setattr(preflight, "host_memory", lambda: 1000)
    with pytest.raises(InputError, match="the model's parameters"):
        starting_state(run, None)


def test_a_program_beyond_the_memory_is_told(config, mesh, monkeypatch):
    def program(temp):
        sizes = {"output_size_in_bytes": 10, "alias_size_in_bytes": 10, "temp_size_in_bytes": temp}
        return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))

    monkeypatch.setattr(preflight, "host_memory", lambda: 1000)
    check_program(program(400), config, mesh)
    with pytest.raises(
        InputError, match=r"needs 1.17 KiB of memory, this machine has 1000 bytes free; try a .*size of 10,"
    ):
        check_program(program(600), config, mesh)


def test_memory_is_known_on_linux():
    assert 2**20 < host_memory() < 2**50


def test_a_containers_limit_is_the_memory_where_it_is_less(monkeypatch):
    group = "/sys/fs/cgroup/memory"
    files = {
        "/proc/meminfo": "MemTotal: 16 kB\nMemAvailable: 8 kB\n",
        f"{group}.max": "5000\n",
        f"{group}.current": "2000\n",
        f"{group}.stat": "anon 1500\ninactive_file 500\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda self: files[str(self)])
    assert host_memory() == 3500  # what files are cached in is given back
    for most in ("99999\n", "max\n"):
        files[f"{group}.max"] = most
        assert host_memory() == 8192


def test_a_disk_too_small_for_the_checkpoints_is_told(tmp_path, config, monkeypatch):
    state = {"a": jnp.zeros(1000)}  # 4000 bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9000))
    check_disk(tmp_path, state, config, saves=2)
    with pytest.raises(InputError, match=r"4 checkpoints of 3.91 KiB .*train.keep 2.* 8.79 KiB free"):
        check_disk(tmp_path, state, config, saves=10)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "1").write_bytes(bytes(8000))  # of a run that goes on
    check_disk(tmp_path, state, config, saves=10)
