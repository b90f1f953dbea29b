"""Fixtures shared by all rooms' tests; simulated devices are set up before JAX starts."""

import os
from pathlib import Path

# Tests compile much and compute little: unoptimised code compiles twice as fast.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of third-party data files (`FIT_JAX_DATA`, or `shared/data` beside the project)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FIT_JAX_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the third-party data files; set FIT_JAX_DATA ({folder} is no folder)")
    return folder
