"""Models that others quantised: every device gets its part of the weights that they stand for."""

import json
import shutil

import numpy as np
import pytest

from fit_jax.conversion.check import check_parity
from fit_jax.conversion.convert import export_merged, import_model
from fit_jax.conversion.parity import probe_logits
from fit_jax.errors import InputError
from fit_jax.focus.tokenizers import save_tokenizer, train_tokenizer
from fit_jax.models.config import ModelConfig
from fit_jax.models.model_folder import open_pretrained, resolve_model
from fit_jax.models.weights import abstract_parameters, load_weights
from fit_jax.parallel.config import MeshConfig
from fit_jax.parallel.mesh import make_mesh
from fit_jax.parallel.sharding import lay_out_tree, named_leaves

from ..closeness import assert_close
from .hugging_face import SHAPE, draw, random_model, rewrite, saved, stored_tensors, their_logits
from .quantised_models import PACK, quantise

FAMILIES = ("llama", "phi3")  # Phi's projections are fused: parts of their rows are weights here
TOKENS = np.random.default_rng(0).integers(0, 128, (2, 20), np.int32)


def same(first, second):
    for (path, a), b in zip(named_leaves(first).items(), named_leaves(second).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of a family and a method: the quantised model, and the plain one that it stands for."""
    made = {}

    def make(family, method):
        if (family, method) not in made:
            place = tmp_path_factory.mktemp(f"{family}_{method}")
            saved(random_model(family), place / "plain")
            shutil.copytree(place / "plain", place / "quantised")
            numbers = quantise(place / "quantised", method)
            rewrite(place / "plain", lambda tensors: tensors.update(numbers))
            made[family, method] = place / "quantised", place / "plain"
        return made[family, method]

    return make


def load(folder, mesh=None, **fields):
    model = resolve_model(ModelConfig(pretrained=str(folder), **fields))
    laid_out = None if mesh is None else lambda tree: lay_out_tree(tree, mesh).shardings
    graphdef, shapes = abstract_parameters(model, laid_out)
    return graphdef, load_weights(model, shapes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", PACK)
def test_a_quantised_model_is_the_plain_one_that_it_stands_for(folders, family, method):
    quantised, plain = folders(family, method)
    _, expected = load(plain)
    for mesh in (None, make_mesh(MeshConfig(fsdp=4, tensor=2))):
        _, found = load(quantised, mesh)
        same(expected, found)


def test_fp8_computes_what_transformers_does(folders):
    import transformers

    quantised, _ = folders("llama", "fp8")
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        quantised, dtype="float32", quantization_config=transformers.FineGrainedFP8Config(dequantize=True)
    )
    graphdef, params = load(quantised)
    assert_close(probe_logits(graphdef, (params,), TOKENS), their_logits(reference, TOKENS), 1e-4)


def test_held_in_fewer_bits_again_it_is_the_plain_model_so_held(folders):
    quantised, plain = folders("llama", "gptq")
    _, expected = load(plain, quantize="nf4")
    _, found = load(quantised, quantize="nf4")
    same(expected, found)


def test_imports_and_exports_hold_plain_weights(tmp_path):
    import transformers

    plain, source = tmp_path / "plain", tmp_path / "source"
    config = transformers.LlamaConfig(**SHAPE | {"vocab_size": 260, "num_hidden_layers": 1})
    saved(draw(transformers.LlamaForCausalLM(config)), plain)
    save_tokenizer(train_tokenizer(["Is the review good or bad? It is a very good one."], 260), plain)
    shutil.copytree(plain, source)
    numbers = quantise(source, "awq")
    import_model(str(source), tmp_path / "ours")
    export_merged(str(source), tmp_path / "back")
    expected = stored_tensors(plain) | numbers
    found = stored_tensors(tmp_path / "back")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    assert "quantization_config" not in json.loads((tmp_path / "back" / "config.json").read_text())
    export_merged(str(tmp_path / "ours"), tmp_path / "again")
    assert all(np.array_equal(value, expected[name]) for name, value in stored_tensors(tmp_path / "again").items())


@pytest.mark.parametrize("method", ["gptq", "fp8"])
def test_layers_left_plain_do_not_round_the_others(tmp_path, method):
    """Stacked with them, in a narrower dtype."""
    plain, quantised = tmp_path / "plain", tmp_path / "quantised"
    shutil.copytree(saved(random_model("llama"), plain, "bfloat16"), quantised)
    numbers = quantise(quantised, method, but="layers.0.")
    assert 0 < len(numbers) < 21
    rewrite(plain, lambda tensors: tensors.update({n: v.astype(np.float32) for n, v in (tensors | numbers).items()}))
    same(load(plain)[1], load(quantised)[1])


def test_experts_and_the_text_part_of_a_larger_model_are_read(tmp_path):
    plain, quantised = tmp_path / "plain", tmp_path / "quantised"
    shutil.copytree(saved(random_model("qwen3_moe"), plain), quantised)
    numbers = quantise(quantised, "awq")
    rewrite(plain, lambda tensors: tensors.update(numbers))
    expected = load(plain)[1]
    same(expected, load(quantised)[1])

    def beside(tensors):
        for name in list(tensors):
            tensors[f"model.language_{name}" if name.startswith("model.") else name] = tensors.pop(name)
        tensors["model.vision_tower.weight"] = np.zeros(3, np.float32)

    rewrite(quantised, beside)
    text = json.loads((quantised / "config.json").read_text())
    said = {"quantization_config": text.pop("quantization_config"), "vision_config": {"depth": 1}}
    (quantised / "config.json").write_text(json.dumps({"model_type": "seeing", "text_config": text, **said}))
    same(expected, load(quantised)[1])


def test_biases_of_zeros_are_left_out_and_others_are_not(folders, tmp_path):
    """AutoGPTQ writes them for projections that have none."""
    quantised, plain = folders("llama", "gptq")
    source = shutil.copytree(quantised, tmp_path / "model")
    name = "model.layers.1.self_attn.k_proj.bias"
    rewrite(source, lambda tensors: tensors.update({name: np.zeros(24, np.float16)}))
    same(load(plain)[1], load(source)[1])
    rewrite(source, lambda tensors: tensors.update({name: np.eye(1, 24, dtype=np.float16)[0]}))
    with pytest.raises(InputError, match=r"unused: .*k_proj\.bias"):
        load(source)


def test_fp8_without_its_scales_is_refused(folders, tmp_path):
    source = shutil.copytree(folders("llama", "fp8")[0], tmp_path / "model")
    rewrite(source, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight_scale_inv"))
    with pytest.raises(InputError, match=r"layers.1.mlp.up_proj.weight is in FP8 without a scale; fetch the files"):
        load(source)


def test_a_quantised_model_is_not_compared_with_transformers(folders):
    with pytest.raises(InputError, match=r"is quantised \(gptq\), .* check the model that it was made from"):
        check_parity(str(folders("llama", "gptq")[0]))


def test_a_weight_of_another_shape_is_named(folders, tmp_path):
    source = shutil.copytree(folders("llama", "awq")[0], tmp_path / "model")
    hf = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(hf | {"intermediate_size": 96}))
    with pytest.raises(InputError, match=r"_proj.weight has shape .*; config.json asks for"):
        load(source)


def test_a_method_that_is_not_read_is_named(folders, tmp_path):
    source = shutil.copytree(folders("llama", "awq")[1], tmp_path / "model")
    hf = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(hf | {"quantization_config": {"quant_method": "hqq"}}))
    with pytest.raises(
        InputError, match="of quant_method hqq is not read; name a model in one of bitsandbytes, gptq, awq, fp8"
    ):
        open_pretrained(str(source))
