"""Fixtures shared by all packages' tests; simulated devices are set up before JAX starts.

XLA optimises and fuses little where `XLA_FLAGS` is unset; `docs/tests.md` says why, and under which settings every test
passes.
"""

import os
from importlib.metadata import version
from pathlib import Path

_DEVICES = "--xla_force_host_platform_device_count"
_FAST = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # XLA ends the process at a flag that it does not know
    _FAST += " --xla_cpu_use_fusion_emitters=false"
_FLAGS = os.environ.get("XLA_FLAGS", _FAST)
if _DEVICES not in _FLAGS:
    os.environ["XLA_FLAGS"] = f"{_FLAGS} {_DEVICES}=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax  # noqa: E402
import pytest  # noqa: E402

from fit_jax.parallel.topology import Topology  # noqa: E402

# Made once for all packages that use them.
from .demo_run import browse, config, decoder, encoder, make_scorer, params, task  # noqa: E402, F401
from .stored_models import adapter, imported  # noqa: E402, F401

# They take longest. Begun last, one would keep a worker busy while the others have nothing left to do.
_FIRST = (
    "test_methods_on_meshes",
    "test_meshes",
    "test_many_processes",
    "test_decoder",
    "test_trainer",
    "test_families",
    "test_adapters",
    "test_real_tokenizers",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, in the same order for every worker."""
    items.sort(key=lambda item: _FIRST.index(item.path.stem) if item.path.stem in _FIRST else len(_FIRST))


@pytest.fixture(autouse=True, scope="session")
def _compile_once(tmp_path_factory):
    """What one test has compiled, later ones, other workers and child processes find on the disk."""
    base = tmp_path_factory.getbasetemp()
    folder = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "xla")
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (folder, 0)):
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        yield
    for name, value in zip(names, before):
        jax.config.update(name, value)


@pytest.fixture
def no_silent_broadcasting():
    """Arrays of different ranks meet on purpose or not at all."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def machine(monkeypatch) -> Topology:
    """`v5e:2x4` whose eight chips are this machine's simulated devices, so that no TPU compiler is needed."""
    monkeypatch.setattr(Topology, "devices", lambda self: jax.devices()[: self.chips])
    monkeypatch.setattr(Topology, "rate", lambda self, group: self.accelerator.link)
    return Topology.parse("v5e:2x4")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of third-party data files (`FIT_JAX_DATA`, or `shared/data` beside the project)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FIT_JAX_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs the third-party data files; set FIT_JAX_DATA ({folder} is no folder)")
    return folder
