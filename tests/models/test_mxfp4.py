"""MXFP4: every byte under every scale as transformers reads it, and experts that come back as they were stored."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from fit_jax.conversion.parity import probe_logits
from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import save_merged
from fit_jax.models.lora import LoraParam
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import open_pretrained, resolve_model
from fit_jax.models.mxfp4 import PackedFiles, unpacked
from fit_jax.models.weights import abstract_parameters, load_weights, tensor_files
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree, named_leaves

from ..closeness import assert_close
from .hugging_face import SHAPE, packed_gpt_oss, rewrite, stored_tensors, their_logits

BF16 = np.dtype(ml_dtypes.bfloat16)


def theirs(blocks: np.ndarray, scales: np.ndarray, dtype: str) -> np.ndarray:
    """(E, in, out) as transformers unpacks it, in float32, which holds all of bfloat16's numbers."""
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    packed = torch.from_numpy(blocks), torch.from_numpy(scales)
    return convert_moe_packed_tensors(*packed, dtype=getattr(torch, dtype)).float().numpy()


@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)])
def test_every_byte_under_every_scale_is_what_transformers_reads(dtype):
    scales = np.repeat(np.arange(255, dtype=np.uint8), 16).reshape(255, 1, 16)
    blocks = np.tile(np.arange(256, dtype=np.uint8), 255).reshape(255, 1, 16, 16)
    found = unpacked(blocks, scales, dtype).swapaxes(1, 2).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), theirs(blocks, scales, dtype.name).view(np.uint32))
    assert np.isnan(unpacked(blocks[:1], np.full_like(scales[:1], 255), dtype).astype(np.float32)).all()


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """A gpt-oss whose experts are packed, as published ones are."""
    return packed_gpt_oss(tmp_path_factory.mktemp("gpt_oss"))


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    return shutil.copytree(packed, tmp_path / "model")


TOKENS = np.random.default_rng(0).integers(0, SHAPE["vocab_size"], (2, 20), np.int32)


def load(folder: Path, mesh=None, **fields):
    model = resolve_model(ModelConfig(pretrained=str(folder), **fields))
    laid_out = None if mesh is None else lambda tree: lay_out_tree(tree, mesh).shardings
    graphdef, shapes = abstract_parameters(model, laid_out)
    return graphdef, load_weights(model, shapes)


def test_a_packed_model_computes_what_transformers_does(packed):
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(packed, dtype="float32", attn_implementation="eager")
    graphdef, params = load(packed)
    assert_close(probe_logits(graphdef, (params,), TOKENS), their_logits(reference, TOKENS), 1e-4)


def test_devices_get_their_parts_of_packed_kernels(packed):
    """Also where a part begins within the inputs that share a scale."""
    _, whole = load(packed)
    _, parts = load(packed, make_mesh(MeshConfig(fsdp=4, tensor=2)))
    for (path, a), b in zip(named_leaves(whole).items(), named_leaves(parts).values()):
        np.testing.assert_array_equal(a, b, err_msg=path)
    kernel = named_leaves(parts)["blocks.mlp.gate_proj.kernel"]
    assert kernel.addressable_shards[0].data.shape == (1, 3, 16, 16)
    stored = stored_tensors(packed)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    expected = theirs(*(stored[f"{name}_{part}"] for part in ("blocks", "scales")), "bfloat16")
    np.testing.assert_array_equal(np.asarray(kernel[0], np.float32), expected[..., ::2])


@pytest.mark.parametrize(("kind", "most_error"), [("int8", 0.05), pytest.param("nf4", 0.5, marks=pytest.mark.slow)])
def test_packed_experts_may_be_quantised_again(packed, kind, most_error):
    models = load(packed), load(packed, quantize=kind)
    exact, near = (probe_logits(graphdef, (params,), TOKENS) for graphdef, params in models)
    assert 0 < np.abs(exact - near).mean() < most_error * exact.std()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, name: t.pop(f"{name}_scales"), "unused: .*_blocks"),
        (lambda t, name: t.update({f"{name}_scales": t[f"{name}_scales"][..., :1]}), "_blocks .* are no MXFP4; fetch"),
        (lambda t, name: t.update({f"{name}_blocks": t[f"{name}_blocks"].astype(np.int8)}), "of int8 .* are no MXFP4"),
        (
            lambda t, name: t.update({f"{name}_{part}": t[f"{name}_{part}"][1:] for part in ("blocks", "scales")}),
            r"gate_up_proj has shape \(2, 64, 64\); config.json asks for \(3, 64, 64\)",
        ),
    ],
)
def test_packed_tensors_that_do_not_fit_are_named(copied, change, message):
    rewrite(copied, lambda tensors: change(tensors, "model.layers.0.mlp.experts.gate_up_proj"))
    with pytest.raises(InputError, match=message):
        load(copied)


def test_only_gpt_oss_is_read_in_mxfp4(copied):
    path = copied / "config.json"
    hf = json.loads(path.read_text())
    for change in ({"model_type": "llama", "attention_bias": False}, {"quantization_config": []}):
        path.write_text(json.dumps(hf | change))
        with pytest.raises(
            InputError, match=r"quantization_config .* is not read; name a model in one of bitsandbytes, "
        ):
            open_pretrained(str(copied))


def test_untouched_experts_are_written_as_they_were_stored(packed, tmp_path):
    """Beside an adapter on attention, which is merged."""
    lora = LoraConfig(rank=2, targets=("q_proj",))
    model = resolve_model(ModelConfig(pretrained=str(packed)))
    graphdef, adapter, _ = nnx.split(nnx.eval_shape(lambda: Decoder(model, lora, rngs=nnx.Rngs(0))), LoraParam, ...)
    adapter = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), adapter)
    decoder = nnx.merge(graphdef, adapter, load_weights(model, abstract_parameters(model)[1]))
    save_merged(tmp_path, decoder, BF16, 30_000, tensor_files(open_pretrained(str(packed))))
    before, after = stored_tensors(packed), stored_tensors(tmp_path)
    changed = {name for name in before if not np.array_equal(before[name].view(np.uint8), after[name].view(np.uint8))}
    assert before.keys() == after.keys()
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}


def test_what_is_not_asked_for_is_not_read(packed):
    files = tensor_files(open_pretrained(str(packed)))
    assert isinstance(files, PackedFiles)
    name = "model.layers.1.mlp.experts.down_proj"
    whole = files.read(name)
    index = slice(1, 3), slice(5, 30), slice(3, 60, 2)
    np.testing.assert_array_equal(files.read(name, index).astype(np.float32), whole[index].astype(np.float32))
    assert jnp.issubdtype(whole.dtype, jnp.floating)
