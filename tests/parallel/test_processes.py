from typing import NamedTuple

import jax
import numpy as np
import pytest

from fit_jax.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.processes import rows_of_this_process, to_global


class Rows(NamedTuple):
    tokens: np.ndarray
    target_ids: np.ndarray

    @property
    def axes(self):
        return Rows("BT", "BC")


@pytest.mark.parametrize("config", [MeshConfig(), MeshConfig(fsdp=2, tensor=2), MeshConfig(data=2, context=4)])
def test_one_process_holds_all_rows_split_over_data_and_fsdp(config):
    mesh = make_mesh(config)
    assert rows_of_this_process(16, mesh) == slice(0, 16)
    batch = Rows(np.arange(16 * 8).reshape(16, 8), np.arange(16 * 3).reshape(16, 3))
    placed = to_global(batch, mesh)
    for array, expected in zip(placed, batch):
        np.testing.assert_array_equal(jax.device_get(array), expected)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    assert placed.tokens.sharding.shard_shape((16, 8)) == (16 // parts, 8 // mesh.shape["context"])
    assert placed.target_ids.sharding.shard_shape((16, 3)) == (16 // parts, 3)
