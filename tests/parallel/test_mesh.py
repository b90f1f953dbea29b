import jax
import pytest
from jax.sharding import AxisType

from fit_jax.config import MeshConfig
from fit_jax.errors import InputError
from fit_jax.parallel.config import AXES
from fit_jax.parallel.mesh import make_mesh, mesh_shape


def test_free_axis_takes_what_is_left():
    assert mesh_shape(MeshConfig(data=-1, fsdp=2, tensor=2), 8) == (2, 2, 2, 1, 1)
    assert mesh_shape(MeshConfig(data=1, fsdp=-1), 8) == (1, 8, 1, 1, 1)
    assert mesh_shape(MeshConfig(data=1, expert=-1), 8) == (1, 1, 1, 1, 8)
    assert mesh_shape(MeshConfig(), 1) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=3),
        MeshConfig(data=-1, tensor=3),
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=0, fsdp=8),
        MeshConfig(data=8, slices=3),
    ],
)
def test_sizes_that_cannot_cover_the_devices_are_wrong_input(config):
    with pytest.raises(InputError, match="mesh"):
        mesh_shape(config, 8)


def test_mesh_covers_every_device_once_with_auto_axes():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    assert mesh.axis_names == AXES
    assert mesh.axis_types == (AxisType.Auto,) * len(AXES)
    assert sorted(d.id for d in mesh.devices.flat) == sorted(d.id for d in jax.devices())


def test_slices_that_the_devices_do_not_have_are_wrong_input():
    with pytest.raises(InputError, match="slices"):
        make_mesh(MeshConfig(slices=2))
