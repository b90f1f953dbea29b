import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fit_jax.config import MeshConfig
from fit_jax.errors import InputError
from fit_jax.models import kernels
from fit_jax.models.attention import Scope, attention
from fit_jax.models.kernels import choose, of_gpu
from fit_jax.parallel.hlo import collectives
from fit_jax.parallel.mesh import make_mesh

from ..closeness import assert_close

T = 256


def packed(rows: int, heads: int, kv_heads: int, width: int = 64):
    """Queries, keys, values, and positions and ends of rows that pack three sequences and padding."""
    rng = np.random.default_rng(0)
    q = rng.normal(size=(rows, T, heads, width)).astype(np.float32)
    k, v = rng.normal(size=(2, rows, T, kv_heads, width)).astype(np.float32)
    positions, ends = np.zeros((2, rows, T), np.int32)
    for row in range(rows):
        start = 0
        for length in (100, 57, 30 + row):
            positions[row, start : start + length] = np.arange(length)
            ends[row, start : start + length] = start + length
            start += length
    return q, k, v, positions, ends


def test_kernels_are_chosen_by_what_they_can_compute(monkeypatch):
    q = jnp.zeros((2, T, 4, 64), jnp.bfloat16)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose("auto", q, 5.0) == choose("kernel", q, 5.0) == "tpu"
    assert choose("auto", q.astype(jnp.float32), None) == "tpu"
    assert choose("xla", q, None) == "xla"
    assert choose("auto", q[:, :8], None) == "xla"
    assert choose("auto", q, None, biased=True) == "xla"
    with pytest.raises(InputError, match=r"cudnn does not run on tpu"):
        choose("cudnn", q, None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose("kernel", q, 5.0) == "gpu"
    assert choose("kernel", q.astype(jnp.float32), None) == "xla"
    assert choose("auto", q, None) == choose("cudnn", q, None) == "cudnn"
    assert choose("cudnn", q, 5.0) == choose("auto", q, None, sinks=True) == "xla"
    assert choose("kernel", q, None, sinks=True) == "gpu"
    monkeypatch.setattr(kernels, "device_kind_of", lambda mesh: "NVIDIA H200")
    assert choose("kernel", q, 5.0, sinks=True) == "hopper"
    assert choose("kernel", jnp.concatenate([q] * 3, axis=3), None) == "gpu"
    assert choose("kernel", q.astype(jnp.float32), None) == "xla"
    assert choose("auto", q, None) == "cudnn"
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert choose("auto", q, None) == "xla"
    with pytest.raises(InputError, match=r"kernel does not run on cpu"):
        choose("kernel", q, None)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        *((f"NVIDIA {card}", "hopper") for card in ("H100 80GB HBM3", "H100 PCIe", "H200", "H20", "GH200 480GB")),
        *((f"NVIDIA {card}", "gpu") for card in ("A100-SXM4-80GB", "L4", "GB200", "B200", "GeForce RTX 4090")),
    ],
)
def test_hopper_is_known_by_the_name_of_its_cards(name, kernel):
    assert of_gpu(name, 128) == kernel
    assert of_gpu(name, 136) == "gpu"


def test_rows_that_the_mesh_does_not_divide_are_left_to_xla(monkeypatch):
    monkeypatch.setattr(kernels, "platform_of", lambda mesh: "tpu")
    q = jnp.zeros((2, T, 4, 64), jnp.bfloat16)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        assert choose("auto", q, None) == "xla"
        assert choose("auto", jnp.concatenate([q, q]), None) == "tpu"


def test_a_biased_key_weighs_as_so_many_copies_of_it():
    """Behind the cap on the scores, too."""
    q, k, v, _, _ = packed(1, 4, 2)
    q, k, v = q[:, 7:8], k[:, :8], v[:, :8]
    last, order = np.array([[7]], np.int32), np.array([[0, 1, 2, 3, 3, 3, 4, 5, 6, 7]], np.int32)

    def attended(k, v, bias=None):
        count = k.shape[1]
        ends = np.full((1, count), count, np.int32)
        bias_BCHT = None if bias is None else np.broadcast_to(bias[:, None, None], (1, 1, q.shape[2], count))
        scope = Scope(np.full_like(last, count - 1), last, order[:, :count], ends, bias_BCHT)
        return attention(q, k, v, scope, scale=0.2, softcap=2.0)

    bias = np.where(np.arange(8) == 3, np.log(3), 0.0).astype(np.float32)[None]
    assert_close(attended(k, v, bias), attended(k[:, order[0]], v[:, order[0]]), tolerance=1e-6)
    assert np.abs(attended(k, v, bias) - attended(k, v)).max() > 1e-3


def test_queries_split_by_tokens_stay_where_they_are():
    """Of two query heads for each key head, too: what moves is keys and values, forward."""
    q, k, v, positions, ends = packed(1, 8, 2)
    index = np.broadcast_to(np.arange(T, dtype=np.int32)[None], positions.shape)
    mesh = make_mesh(MeshConfig(context=8))
    split = NamedSharding(mesh, PartitionSpec(None, "context"))

    def run(q, k, v):
        return attention(q, k, v, Scope(index, positions, positions, ends), kind="xla", scale=0.2)

    text = jax.jit(run, in_shardings=split, out_shardings=split).lower(q, k, v).compile().as_text()
    moved = collectives(text, 8)
    assert {c.kind for c in moved} == {"all-gather"}
    assert sum(c.bytes for c in moved) <= k.nbytes + v.nbytes


def test_bfloat16_gradients_err_by_their_rounding_alone():
    """With sharp scores: rounded before its division, the product would put the errors at 0.014; they are 0.011."""
    q, k, v, positions, ends = packed(1, 4, 2)
    index = np.broadcast_to(np.arange(T, dtype=np.int32)[None], positions.shape)
    weight = (ends > 0)[:, :, None, None] * np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    def loss(dtype, q, k, v):
        y = attention(*(x.astype(dtype) for x in (q, k, v)), Scope(index, positions, positions, ends), scale=0.6)
        return (y.astype(jnp.float32) ** 2 * weight).sum()

    rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32) for x in (q, k, v)]
    gradients = jax.jit(jax.grad(loss, (1, 2, 3)), static_argnums=0)
    for found, expected in zip(gradients(jnp.bfloat16, *rounded), gradients(jnp.float32, *rounded)):
        error = np.sqrt(np.mean((np.asarray(found, np.float32) - expected) ** 2))
        assert error < 0.0125 * np.sqrt(np.mean(np.asarray(expected) ** 2))
