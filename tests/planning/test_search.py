"""The search tries meshes that divide the run, the fastest first, and returns one that fits."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fit_jax.errors import InputError
from fit_jax.models.linear_config import LinearConfig
from fit_jax.parallel.config import AXES
from fit_jax.parallel.topology import ACCELERATORS
from fit_jax.planning import search as searching
from fit_jax.planning.plan import with_mesh
from fit_jax.planning.search import candidates, mesh_sizes, search
from fit_jax.planning.workload import workload


@pytest.fixture
def compiler(monkeypatch) -> SimpleNamespace:
    """Stands for compiling a plan: refuses the first `refuses` configs and keeps all that it was `asked`."""
    stands = SimpleNamespace(refuses=0, asked=[])

    def make_plan(config, topology):
        stands.asked.append(config)
        return SimpleNamespace(fits=len(stands.asked) > stands.refuses)

    monkeypatch.setattr(searching, "make_plan", make_plan)
    return stands


def test_meshes_cover_the_machine_and_divide_the_run(tiny):
    load = workload(tiny("--train.batch_size", "12", "--model.kv_heads", "2"))
    found = list(mesh_sizes(load, 8, 1))
    assert len({tuple(getattr(m, axis) for axis in AXES) for m in found}) == len(found) > 1
    for mesh in found:
        assert math.prod(getattr(mesh, axis) for axis in AXES) == 8
        assert load.rows % (mesh.data * mesh.fsdp) == 0
        assert load.model.kv_heads % mesh.tensor == 0
        assert mesh.context == 1
    narrow = replace(load, rows=8, model=replace(load.model, kv_heads=4, feed_forward=6))
    assert {m.tensor for m in mesh_sizes(narrow, 8, 1)} == {1, 2}
    keeping = replace(load.model, kv_heads=4, linear=LinearConfig(layers=(0,), key_heads=2, value_heads=4))
    assert {m.tensor for m in mesh_sizes(replace(load, rows=8, model=keeping), 8, 1)} == {1, 2}
    assert {m.context for m in mesh_sizes(replace(load, sequence_length=8192), 8, 1)} > {1, 2}
    assert all(m.data % 2 == 0 and m.slices == 2 for m in mesh_sizes(replace(load, rows=8), 8, 2))


def test_meshes_divide_the_experts_of_a_mixture_alone(tiny):
    load = workload(tiny("--model.family", "mixtral", "--model.experts", "4"))
    found = list(mesh_sizes(load, 8, 1))
    assert {m.expert for m in found} == {1, 2, 4}
    assert len({tuple(getattr(m, axis) for axis in AXES) for m in found}) == len(found)
    assert all(math.prod(getattr(m, axis) for axis in AXES) == 8 for m in found)
    assert all(load.rows % (m.data * m.fsdp * m.expert) == 0 for m in found)
    assert {m.expert for m in mesh_sizes(replace(load, model=replace(load.model, experts=0)), 8, 1)} == {1}
    assert {m.expert for m in mesh_sizes(replace(load, rows=2), 8, 1)} <= {1, 2}


def test_meshes_divide_the_rows_of_rehearsal(tiny):
    load = workload(tiny("--rehearsal.files", "[a.txt]", "--rehearsal.rows", "2"))
    assert {m.data * m.fsdp for m in mesh_sizes(load, 8, 1)} <= {1, 2}


def test_candidates_trade_memory_for_time(tiny, machine):
    load = workload(tiny("--model.layers", "12", "--train.batch_size", "32"))
    found = {(c.load.mesh.fsdp, c.load.accumulate, c.load.model.remat): c for c in candidates(load, machine)}
    keep, again = found[8, 1, "none"], found[8, 1, "full"]
    assert again.time.compute > keep.time.compute
    assert again.bytes < keep.bytes
    assert found[8, 4, "full"].bytes < again.bytes


def test_the_fastest_that_fits_is_chosen(tiny, machine, compiler):
    config = tiny()
    ranked = sorted(candidates(workload(config), machine), key=lambda c: c.time.total)
    compiler.refuses = 2
    chosen, plan = search(config, machine)
    assert plan.fits
    assert compiler.asked == [with_mesh(config, c.load) for c in ranked[:3]]
    assert chosen == compiler.asked[-1]
    assert (chosen.train.batch_size, chosen.model.width) == (config.train.batch_size, config.model.width)


def test_what_needs_too_much_memory_is_not_tried(tiny, machine, compiler, monkeypatch):
    config = tiny("--lora.rank", "0")
    found = list(candidates(workload(config), machine))
    least = min(c.bytes for c in found)
    monkeypatch.setitem(ACCELERATORS, "v5e", replace(ACCELERATORS["v5e"], memory=1.2 * least))
    chosen, _ = search(config, machine)
    fitting = [c for c in found if c.bytes <= 1.2 * least * searching.MARGIN]
    assert len(fitting) < len(found)
    assert chosen == with_mesh(config, min(fitting, key=lambda c: c.time.total).load)
    assert chosen.mesh.fsdp * chosen.mesh.tensor > 1  # whole copies of the state do not fit


def test_a_machine_that_is_too_small_is_told(tiny, machine, compiler, monkeypatch):
    compiler.refuses = 10
    with pytest.raises(InputError, match=r"none of the 4 fastest layouts .* fits by the compiler"):
        search(tiny(), machine)
    monkeypatch.setattr(searching, "MARGIN", 0.0)
    with pytest.raises(InputError, match="nothing fits v5e:2x4: the leanest of"):
        search(tiny(), machine)


def test_rows_that_no_mesh_divides_are_told(tiny, machine):
    with pytest.raises(InputError, match=r"divides train\.batch_size 9"):
        search(tiny("--train.batch_size", "9", "--model.heads", "1", "--model.kv_heads", "1"), machine)
