"""The kernel for Hopper in JAX's simulator of a GPU, and compiled for one.

The simulator has the threads, copies, memory and barriers of a program; it finds copies that are read too soon or
overwritten too soon, and waits without an end. Products and their layouts are for the compiler alone.
"""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from .test_prefix_attention import compare, compiled, draw, program

SIMULATOR = "this jax has no simulator of GPUs, which is no public part of it"
simulator = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.interpret_pallas_call", reason=SIMULATOR)
params = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params", reason=SIMULATOR)


@pytest.fixture(autouse=True)
def _left_clean():
    yield
    simulator.reset_gpu_interpret_mode_state()


def simulated(inputs, gradients, scope, window, softcap):
    """Results and gradients; no two threads get in each other's way."""
    with params.force_gpu_interpret_mode(params.InterpretGPUParams(detect_races=True)):
        found = [np.asarray(x) for x in program("hopper", softcap)(inputs, gradients, scope, window)]
    assert not simulator.get_races().races_found
    return found


# Rows, tokens, queries, heads, key heads, width, softcap, whether a window. Each program is compiled for each of its
# threads: that is what takes the time.
@pytest.mark.parametrize(
    "shape",
    [
        (1, 200, 100, 1, 1, 64, 5.0, True),
        pytest.param((1, 200, 200, 2, 1, 64, 5.0, True), marks=pytest.mark.slow),
        pytest.param((2, 140, 20, 3, 1, 96, None, True), marks=pytest.mark.slow),
        pytest.param((1, 300, 300, 2, 2, 128, None, False), marks=pytest.mark.slow),
    ],
)
def test_equals_xla_on_a_random_forest(shape):
    *sizes, softcap, windowed = shape
    inputs, gradients, scope = draw(np.random.default_rng(1), *sizes)
    window = jnp.int32(shape[1] // 3) if windowed else None
    compare(
        simulated(inputs, gradients, scope, window, softcap),
        program("xla", softcap)(inputs, gradients, scope, window),
        2e-5,
    )


@pytest.mark.slow
def test_bfloat16_is_within_its_rounding_of_xla():
    inputs, gradients, scope = draw(np.random.default_rng(0), 1, 200, 200, 2, 1, 64, jnp.bfloat16)
    found, expected = (
        simulated(inputs, gradients, scope, None, None),
        program("xla", None)(inputs, gradients, scope, None),
    )
    for a, b in zip(found, expected):
        a, b = (np.where(np.isfinite(x), x, 0).astype(np.float32) for x in (a, b))
        assert np.sqrt(np.mean((a - b) ** 2)) < 2e-3 * np.abs(b).max()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the GPU compiler")
@pytest.mark.parametrize(
    ("topology", "shape"),
    [
        ("h100:2", (3000, 8, 2, 128, None, None)),
        ("h100:1", (3000, 8, 8, 96, 50.0, 512)),
        ("h100:1", (24, 4, 1, 64, None, None)),
    ],
)
def test_compiles_for_hopper(topology, shape):
    """Down to the machine's code: PTX by LLVM, and that by ptxas of the CUDA toolkit."""
    assert "mosaic_gpu" in compiled(topology, "hopper", *shape).as_text()
