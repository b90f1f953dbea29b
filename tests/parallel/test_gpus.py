"""GPUs as their compiler must be told of them."""

import pytest

from fit_jax.parallel.gpus import CARDS, target_config
from fit_jax.parallel.topology import ACCELERATORS


@pytest.mark.parametrize("kind", [kind for kind, figures in ACCELERATORS.items() if figures.platform == "cuda"])
def test_every_gpu_is_described_to_its_compiler(kind):
    text = target_config(kind)
    assert f"core_count: {CARDS[kind].cores}" in text
    assert CARDS[kind].memory > ACCELERATORS[kind].memory
    assert CARDS[kind].bandwidth == pytest.approx(ACCELERATORS[kind].bandwidth, rel=0.01)
