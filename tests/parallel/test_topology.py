import importlib.util
from dataclasses import dataclass

import pytest

from fit_jax.errors import InputError
from fit_jax.parallel.topology import ACCELERATORS, Topology

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler (libtpu)")


@dataclass(frozen=True)
class Chip:
    """A stand-in for a compile-only device."""

    coords: tuple[int, int, int] = (0, 0, 0)
    slice_index: int = 0
    process_index: int = 0


@pytest.mark.parametrize(
    ("text", "slices", "shown", "chips"),
    [
        ("v5e:4x4", 1, "v5e:4x4", 16),
        ("v5p:2x2x1", 1, "v5p:2x2x1", 4),
        ("v5e:16x16", 2, "2 x v5e:16x16", 512),
        ("h100:8", 1, "h100:1x8", 8),
        ("l4:2x4", 1, "l4:2x4", 8),
    ],
)
def test_topologies_parse(text, slices, shown, chips):
    topology = Topology.parse(text, slices)
    assert str(topology) == shown
    assert topology.chips == chips


@pytest.mark.parametrize("text", ["v9:4x4", "v5e", "v5e:", "v5e:4xx4", "v5e:0x4", "v5p:2x2x2x2", "h100:2x2x2"])
def test_malformed_topologies_are_named(text):
    with pytest.raises(InputError, match=text):
        Topology.parse(text)


def test_gpus_have_no_slices():
    with pytest.raises(InputError, match="HOSTSxGPUS"):
        Topology.parse("h100:8", 2)


def test_rings_use_both_directions_and_open_axes_one():
    link = ACCELERATORS["v5e"].link
    whole = Topology.parse("v5e:16x16")
    ring = [Chip((x, 0, 0)) for x in range(16)]
    assert whole.rate(ring) == 2 * link
    assert whole.rate(ring[:8]) == link
    assert whole.rate([Chip((x, y, 0)) for x in range(16) for y in range(16)]) == 4 * link
    assert Topology.parse("v5e:4x4").rate([Chip((x, 0, 0)) for x in range(4)]) == link


def test_groups_between_slices_or_hosts_use_the_network():
    two = Topology.parse("v5e:4x4", 2)
    assert two.rate([Chip(), Chip(slice_index=1)]) == two.accelerator.network
    gpus = Topology.parse("h100:2x8")
    assert gpus.rate([Chip(), Chip(process_index=1)]) == gpus.accelerator.network
    assert gpus.rate([Chip(), Chip()]) == gpus.accelerator.link


@pytest.mark.parametrize(("text", "extra"), [("v5e:2x2", "tpu"), ("h100:8", "cuda")])
def test_a_missing_compiler_names_the_extra(text, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"pip install .\.\[{extra}\]"):
        Topology.parse(text).devices()


@needs_libtpu
@pytest.mark.parametrize(
    ("text", "slices", "count"),
    [("v4:2x2x1", 1, 4), ("v5e:1x1", 1, 1), ("v5e:4x4", 2, 32), ("v6e:2x2", 1, 4), ("tpu7x:2x2x1", 1, 8)],
)
def test_devices_of_named_slices(text, slices, count):
    assert len(Topology.parse(text, slices).devices()) == count


@needs_libtpu
def test_an_impossible_slice_is_refused():
    with pytest.raises(InputError, match="v5e:3x3"):
        Topology.parse("v5e:3x3").devices()
