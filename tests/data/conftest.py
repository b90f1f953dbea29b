"""Tasks built once for all tests of this folder."""

from functools import cache

import pytest

from fit_jax.config import TaskConfig
from fit_jax.data.tasks import build_task


@pytest.fixture(scope="session")
def built(data_dir):
    """Builds a task of the real files by name; each only once."""
    return cache(lambda name, **fields: build_task(TaskConfig(name=name, data_dir=str(data_dir), **fields), 0))
