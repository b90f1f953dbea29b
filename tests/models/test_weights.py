"""Loading and saving: shards, imported models, quantised kernels, and every way a file can be wrong."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fit_jax.conversion.parity import compare, probe_logits, probe_tokens
from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.models.export import save_merged, save_own
from fit_jax.models.families import config_to_hf
from fit_jax.models.model_folder import open_pretrained, resolve_model
from fit_jax.models.quantize import quantize
from fit_jax.models.tensor_files import INDEX
from fit_jax.models.weights import abstract_parameters, load_weights
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree, named_leaves

from .hugging_face import random_model, rewrite, saved


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return saved(random_model("llama"), tmp_path_factory.mktemp("llama"))


@pytest.fixture
def copied(llama, tmp_path):
    return shutil.copytree(llama, tmp_path / "model")


def load(folder, **fields):
    model = resolve_model(ModelConfig(pretrained=str(folder), **fields))
    graphdef, shapes = abstract_parameters(model)
    return model, graphdef, load_weights(model, shapes)


def test_every_device_gets_its_own_shard_and_the_file_is_whole_again(llama, tmp_path):
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    model = resolve_model(ModelConfig(pretrained=str(llama)))
    graphdef, shapes = abstract_parameters(model, lambda tree: lay_out_tree(tree, mesh).shardings)
    split, (_, _, whole) = load_weights(model, shapes), load(llama)
    for name, state in (("split", split), ("whole", whole)):
        (tmp_path / name).mkdir()
        save_merged(tmp_path / name, nnx.merge(graphdef, state), np.dtype(np.float32))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("split", "whole")]
    assert files[0] == files[1]
    jax.tree.map(np.testing.assert_array_equal, split, whole)
    kernel = split["blocks"]["mlp"]["down_proj"]["kernel"][...]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 40, 24)}


@pytest.mark.parametrize(("family", "parts"), [("qwen3_moe", 3), ("gpt_oss", 5), ("gemma4_moe", 5)])
def test_experts_on_other_devices_are_exported(family, parts, tmp_path):
    """Of families whose experts have a tensor each, one for all with outputs in turn, and one for all turned round."""
    folder = saved(random_model(family), tmp_path / "theirs")
    model, graphdef, whole = load(folder)
    mesh = make_mesh(MeshConfig(data=1, expert=parts), jax.devices()[:parts])
    _, shapes = abstract_parameters(model, lambda tree: lay_out_tree(tree, mesh).shardings)
    apart = load_weights(model, shapes)
    jax.tree.map(np.testing.assert_array_equal, apart, whole)
    kernels = [leaf for name, leaf in named_leaves(apart).items() if name.endswith("up_proj.kernel") and leaf.ndim > 2]
    assert any(leaf.addressable_shards[0].data.shape[-3] == model.experts // parts for leaf in kernels)
    for name, state in (("apart", apart), ("whole", whole)):
        (tmp_path / name).mkdir()
        save_merged(tmp_path / name, nnx.merge(graphdef, state), np.dtype(np.float32))
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("apart", "whole")]
    assert files[0] == files[1]


def test_experts_are_read_shard_by_shard_and_quantised_one_by_one(tmp_path):
    folder = saved(random_model("qwen3_moe"), tmp_path)
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    model, _, whole = load(folder)
    _, shapes = abstract_parameters(model, lambda tree: lay_out_tree(tree, mesh).shardings)
    split = load_weights(model, shapes)
    jax.tree.map(np.testing.assert_array_equal, split, whole)
    up = split["blocks"]["mlp"]["up_proj"]["kernel"][...]
    assert {shard.data.shape for shard in up.addressable_shards} == {(2, 6, 24, 20)}

    _, _, quantized = load(folder, quantize="int8")
    codes = quantized["blocks"]["mlp"]["up_proj"]["kernel"]["codes"][...]
    for layer, expert in np.ndindex(2, 6):
        np.testing.assert_array_equal(codes[layer, expert], quantize(up[layer, expert], "int8").codes)


def test_parameters_take_the_asked_dtype(llama):
    _, _, state = load(llama, param_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.bfloat16)}


def test_an_imported_model_loads_the_same(llama, tmp_path):
    model, graphdef, state = load(llama)
    hf = config_to_hf(model, max_positions=64, tokens={})
    save_own(tmp_path, nnx.merge(graphdef, state), hf, file_bytes=50_000)
    found = open_pretrained(str(tmp_path))
    assert found.own
    assert found.hf == hf
    again, _, back = load(tmp_path)
    assert dataclasses.replace(again, pretrained=None) == dataclasses.replace(model, pretrained=None)
    jax.tree.map(np.testing.assert_array_equal, back, state)


@pytest.mark.parametrize(("kind", "most_error", "most_bits"), [("int8", 0.02, 8.14), ("nf4", 0.3, 4.14)])
def test_quantised_kernels_are_near_small_and_stored_as_they_are(llama, tmp_path, kind, most_error, most_bits):
    _, graphdef, state = load(llama)
    _, quantized_def, quantized = load(llama, quantize=kind)
    tokens = probe_tokens(nnx.merge(graphdef, state).config)
    exact, near = probe_logits(graphdef, (state,), tokens), probe_logits(quantized_def, (quantized,), tokens)
    agreement = compare(exact, near)
    assert 0 < agreement.mean < most_error * exact.std()
    large = jax.eval_shape(lambda: quantize(jnp.zeros((4096, 1024)), kind))
    stored = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(large))
    assert stored * 8 / (4096 * 1024) < most_bits

    decoder = nnx.merge(quantized_def, quantized)
    save_own(tmp_path, decoder, config_to_hf(decoder.config, max_positions=64, tokens={}))
    model, _, back = load(tmp_path)
    assert model.quantize == kind
    jax.tree.map(np.testing.assert_array_equal, back, quantized)
    other = "int8" if kind == "nf4" else "nf4"
    with pytest.raises(InputError, match=f"is stored as {kind}"):
        resolve_model(ModelConfig(pretrained=str(tmp_path), quantize=other))


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(Q), f"missing: {Q}"),
        (lambda t: t.update(extra=np.ones(3, np.float32)), "unused: extra"),
        (
            lambda t: t.update({"u" * 99 + f"{n}": t.pop(name) for n, name in enumerate([*t]) if "layers" in name}),
            r"missing: [\w.]{28} and \d\d more, unused: u{27}\d and \d\d more; ",
        ),
        (lambda t: t.update({Q: t[Q][:-1]}), r"q_proj.weight has shape \(47, 48\); config.json asks for \(48, 48\)"),
        (lambda t: t.update({Q: t[Q].astype(np.int8)}), "q_proj.weight holds int8; float32 is needed"),
        (lambda t: t.pop("lm_head.weight"), "missing: lm_head.weight; .*untied embeddings"),
        (
            lambda t: t.update({"model.embed_tokens.weight": t["model.embed_tokens.weight"][:100]}),
            r"embed_tokens.weight has shape \(100, 48\); config.json asks for \(128, 48\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(copied, change, message):
    rewrite(copied, change)
    deep = copied / ("f" * 200)  # of which the line shows the end
    copied.rename(copied.with_name("moved"))
    deep.parent.mkdir()
    copied.with_name("moved").rename(deep)
    with pytest.raises(InputError, match=rf"^\.\.\.f+(/[\w.-]+)?: .*{message}") as told:
        load(deep)
    assert len(str(told.value).rpartition("; ")[0]) <= 200


def test_derived_buffers_of_old_exports_are_no_error(copied):
    rewrite(copied, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(6, np.float32)}))
    load(copied)


def test_a_tied_model_may_hold_its_embeddings_twice_but_not_others(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(InputError, match=r"lm_head\.weight is another matrix"):
        load(copied)
    rewrite(copied, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    load(copied)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "gone"])
def test_damaged_files_are_named(copied, damage):
    file = sorted(copied.glob("*.safetensors"))[1]
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"truncated": content[:-100], "garbage": b"\xff" * 100, "empty": b""}[damage])
    with pytest.raises(InputError, match=file.name):
        load(copied)


def test_a_folder_without_weights_or_config_is_named(copied, tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        resolve_model(ModelConfig(pretrained=str(tmp_path / "model" / "..")))
    for file in [*copied.glob("*.safetensors"), copied / INDEX]:
        file.unlink()
    (copied / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"no safetensors file; it has PyTorch \.bin files"):
        load(copied)
    (copied / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json: no JSON"):
        load(copied)
