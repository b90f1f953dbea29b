"""Weights as other programs quantised them, beside what those programs make of them.

`quantised/` holds one weight for each format, `layer`, with the numbers that the program itself reads from it
(`expected`): bitsandbytes 0.50.2, the packing and unpacking of GPTQModel 7.7.0 and of AutoAWQ 0.2.9.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.families.quantization_fields import Quantization, read_quantization
from fit_jax.models.quantized_files import QuantizedFiles
from fit_jax.models.tensor_files import write_tensors

from .hugging_face import rewrite
from .quantised_models import PACK, words

STORED = Path(__file__).parent / "quantised"
FORMATS = {
    "bitsandbytes_nf4": Quantization("bitsandbytes"),
    "bitsandbytes_fp4": Quantization("bitsandbytes"),
    "bitsandbytes_int8": Quantization("bitsandbytes"),
    "gptq4": Quantization("gptq", 4, 32, one_below=True),
    "gptq2": Quantization("gptq", 2, 32, one_below=True),
    "gptq8_v2": Quantization("gptq", 8, 32),
    "awq": Quantization("awq", 4, 32),
}


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with the weight of a format."""

    def make(name):
        shutil.copy(STORED / f"{name}.safetensors", tmp_path / "model.safetensors")
        return tmp_path

    return make


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_are_those_of_the_program_that_packed_them(folder, name):
    files = QuantizedFiles(folder(name), FORMATS[name])
    expected = files.read("expected")
    assert files.tensors["layer.weight"].shape == expected.shape
    assert files.tensors.keys() == {"layer.weight", "expected"}
    found = files.read("layer.weight").astype(np.float32)
    # int8 is divided by 127 in another order; all others are the same bits.
    np.testing.assert_allclose(found, expected, rtol=3e-7 if name == "bitsandbytes_int8" else 0)
    assert len(np.unique(expected)) > 50


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("most", [1, 200, 1 << 22])
def test_parts_are_those_of_the_whole(folder, name, most, monkeypatch):
    """Wherever a part begins within a byte, a word, a group or a block, and however many rows are read at once."""
    monkeypatch.setattr("fit_jax.models.quantized_files.MOST_NUMBERS", most)
    files = QuantizedFiles(folder(name), FORMATS[name])
    whole = files.read("layer.weight")
    for rows in (slice(0, 1), slice(3, 17), slice(8, 24, 2), slice(None)):
        for columns in (slice(0, 8), slice(5, 38), slice(33, None, 3), slice(4, 4)):
            np.testing.assert_array_equal(files.read("layer.weight", (rows, columns)), whole[rows, columns])


def test_blocks_may_begin_within_a_row(tmp_path):
    packed, expected = PACK["bitsandbytes"](np.random.default_rng(0).normal(size=(24, 40)).astype(np.float32))
    write(tmp_path, {f"layer.{end}": value for end, value in packed.items()})
    files = QuantizedFiles(tmp_path, Quantization("bitsandbytes"))
    for rows in (slice(None), slice(1, 2), slice(3, 17), slice(20, 24)):
        np.testing.assert_array_equal(files.read("layer.weight", (rows, slice(None))), expected[rows])


def test_scales_of_scales_are_of_runs_and_items_may_be_of_several_bytes(tmp_path):
    """1,280 numbers in blocks of 8 have 160 scales, of which 50 share one; an item holds up to eight numbers."""
    generator = np.random.default_rng(0)
    table, scale_table = (np.sort(generator.uniform(-1, 1, n)).astype(np.float32) for n in (16, 256))
    codes, scales = generator.integers(0, 16, (160, 8)), generator.integers(0, 256, 160).astype(np.uint8)
    own = np.float32([2.0, 3.0, 5.0, 7.0])
    state = {"blocksize": 8, "dtype": "float32", "shape": [16, 80], "nested_blocksize": 50, "nested_offset": 0.25}
    pairs = codes.reshape(-1, 2)
    packed = (pairs[:, 0] << 4 | pairs[:, 1]).astype(np.uint8)
    expected = table[codes] * (scale_table[scales] * own[np.arange(160) // 50] + np.float32(0.25))[:, None]
    stored = {
        "weight.absmax": scales,
        "weight.nested_absmax": own,
        "weight.nested_quant_map": scale_table,
        "weight.quant_map": table,
        "weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }
    for storage in (np.uint8, ml_dtypes.bfloat16, np.float32):
        stored["weight"] = packed.view(storage)[:, None]
        write(tmp_path, {f"layer.{end}": value for end, value in stored.items()})
        files = QuantizedFiles(tmp_path, Quantization("bitsandbytes"))
        for rows in (slice(None), slice(3, 4), slice(7, 16)):
            found = files.read("layer.weight", (rows, slice(None)))
            np.testing.assert_array_equal(found, expected.reshape(16, 80)[rows])


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
def test_numbers_are_those_of_the_bitsandbytes_that_is_installed(tmp_path, kind, nested):
    functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    import torch

    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    packed, told = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    parts = {f"layer.weight.{end}": value.numpy() for end, value in told.as_dict(packed=True).items()}
    write(tmp_path, {"layer.weight": packed.numpy(), **parts})
    found = QuantizedFiles(tmp_path, Quantization("bitsandbytes")).read("layer.weight")
    np.testing.assert_array_equal(found, functional.dequantize_4bit(packed, told).numpy())


def fp8(rows, columns, tile, dtype=np.float32):
    """A weight in FP8, its scales, and its numbers."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(rows, columns)).astype(ml_dtypes.float8_e4m3fn)
    grid = (1, 1) if tile is None else (-(-rows // tile[0]), -(-columns // tile[1]))
    scales = np.exp2(generator.integers(-6, 3, grid)).astype(dtype)
    spread = np.kron(scales.astype(np.float32), np.ones(tile or (rows, columns)))[:rows, :columns]
    return weight, scales, weight.astype(np.float32) * spread


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e8m0fnu])
@pytest.mark.parametrize("tile", [(16, 32), (24, 20), None])
def test_fp8_has_a_scale_for_each_tile_or_one_for_all(tmp_path, tile, dtype):
    weight, scales, expected = fp8(56, 64, tile, dtype)
    stored = {"layer.weight": weight, "layer.weight_scale_inv": scales, "layer.activation_scale": np.float32([1])}
    write(tmp_path, stored)
    files = QuantizedFiles(tmp_path, Quantization("fp8", tile=tile))
    assert files.tensors.keys() == {"layer.weight"}
    np.testing.assert_array_equal(files.read("layer.weight"), expected)
    index = slice(15, 50), slice(3, 40, 2)
    np.testing.assert_array_equal(files.read("layer.weight", index), expected[index])


@pytest.mark.parametrize("tile", [None, (8, 16)])
def test_scales_of_fp8_may_be_exponents_or_a_scalar(tmp_path, tile):
    """One for all wherever there is one, whatever the config says of tiles."""
    weight, scales, expected = fp8(32, 32, None, ml_dtypes.float8_e8m0fnu)
    for given in (scales.view(np.uint8), scales.astype(np.float32).reshape(())):
        write(tmp_path, {"layer.weight": weight, "layer.weight_scale_inv": given})
        found = QuantizedFiles(tmp_path, Quantization("fp8", tile=tile)).read("layer.weight")
        np.testing.assert_array_equal(found, expected)


def test_fp8_of_other_programs_has_a_scale_for_each_output_or_one_for_all(tmp_path):
    weight, _, _ = fp8(32, 48, None)
    for scales in (np.arange(1, 33, dtype=np.float32), np.arange(1, 33, dtype=np.float32)[:, None], np.float32([3])):
        write(tmp_path, {"layer.weight": weight, "layer.weight_scale": scales, "layer.input_scale": np.float32(1)})
        files = QuantizedFiles(tmp_path, Quantization("fp8", tile=(128, 128)))
        expected = weight.astype(np.float32) * scales.reshape(-1, 1)
        assert files.tensors.keys() == {"layer.weight"}
        np.testing.assert_array_equal(files.read("layer.weight", (slice(5, 20), slice(None))), expected[5:20])


def test_gptq_without_an_order_of_inputs_has_its_groups_in_order(folder):
    place = folder("awq")
    expected = QuantizedFiles(place, FORMATS["awq"]).read("expected")
    scale = np.abs(expected).max(axis=1, keepdims=True) / 7
    codes = np.round(expected / scale).astype(np.int64) + 8
    stored = {"qweight": words(codes).T, "qzeros": words(np.full((1, 32), 8)), "scales": scale.T.astype(np.float32)}
    write(place, {f"layer.{end}": np.ascontiguousarray(value) for end, value in stored.items()})
    found = QuantizedFiles(place, Quantization("gptq", 4, 0)).read("layer.weight")
    np.testing.assert_allclose(found, (codes - 8) * scale, rtol=1e-6)


def write(folder, tensors):
    shapes = {name: (np.shape(value), np.asarray(value).dtype) for name, value in tensors.items()}
    values = (partial(iter, [np.asarray(value)]) for value in tensors.values())
    write_tensors(folder, shapes, values, 2**40)


STATE = "layer.weight.quant_state.bitsandbytes__nf4"


def cut(name):
    return lambda tensors: tensors.update({name: tensors[name][:-1]})


def state(**fields):
    def change(tensors):
        told = json.loads(tensors[STATE].tobytes()) | fields
        tensors[STATE] = np.frombuffer(json.dumps(told).encode(), np.uint8)

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "bitsandbytes_nf4",
            lambda t: t.pop("layer.weight.absmax"),
            "layer lacks weight.absmax, which bitsandbytes has",
        ),
        (
            "bitsandbytes_nf4",
            cut("layer.weight"),
            "of other sizes than its state says; fetch the files and config.json",
        ),
        ("bitsandbytes_nf4", cut("layer.weight.absmax"), "of other sizes than its state says"),
        ("bitsandbytes_nf4", cut("layer.weight.quant_map"), "of other sizes than its state says"),
        ("bitsandbytes_nf4", cut("layer.weight.nested_quant_map"), "of other sizes than its state says"),
        ("bitsandbytes_nf4", cut("layer.weight.nested_absmax"), "of other sizes than its state says"),
        ("bitsandbytes_nf4", lambda t: t.pop("layer.weight.nested_absmax"), "of other sizes than its state says"),
        ("bitsandbytes_nf4", lambda t: t.update({STATE: t[STATE][:-1]}), "holds no JSON"),
        ("bitsandbytes_nf4", lambda t: t.update({STATE: np.frombuffer(b"[[]]", np.uint8)}), "holds no object"),
        ("bitsandbytes_nf4", lambda t: t.update({STATE: np.zeros(1 << 17, np.uint8)}), "is no description"),
        ("bitsandbytes_nf4", state(shape=[64]), "of other sizes than its state says"),
        ("bitsandbytes_nf4", state(shape=["a", 64]), r"layer cannot .*: shape\[0\] 'a' is no integer from 1 to"),
        ("bitsandbytes_nf4", state(shape=[1.5, 64]), r"shape\[0\] 1.5 is no integer"),
        ("bitsandbytes_nf4", state(shape=None), "of other sizes than its state says"),
        ("bitsandbytes_nf4", state(blocksize=0), "blocksize 0 is no integer from 2 to"),
        ("bitsandbytes_nf4", state(dtype="complex64"), "dtype 'complex64' is not supported"),
        ("bitsandbytes_int8", cut("layer.SCB"), "its weight and SCB are of other sizes"),
        (
            "bitsandbytes_int8",
            lambda t: t.update({"layer.weight_format": np.array(2, np.uint8)}),
            "in the order of a GPU's tiles",
        ),
        ("gptq4", lambda t: t.pop("layer.qzeros"), "layer lacks qzeros, which gptq has"),
        ("gptq4", cut("layer.qzeros"), "of other sizes or dtypes than 4 bits ask for"),
        ("gptq4", cut("layer.g_idx"), "of other sizes or dtypes than 4 bits ask for"),
        ("gptq4", lambda t: t.update({"layer.g_idx": t["layer.g_idx"] + 1}), "its g_idx names groups beyond its 3"),
        ("gptq4", lambda t: t.update({"layer.g_idx": t["layer.g_idx"] - 1}), "its g_idx names groups beyond its 3"),
        ("gptq4", lambda t: t.update({"layer.g_idx": t["layer.g_idx"].astype(np.float32)}), "of other sizes or dtypes"),
        ("gptq4", lambda t: t.update({"layer.scales": t["layer.scales"].astype(np.int8)}), "of other sizes or dtypes"),
        ("gptq4", lambda t: t.update({"layer.weight": t["layer.scales"]}), "it has a plain weight as well"),
        ("bitsandbytes_int8", lambda t: t.update({"layer.SCB": t["layer.SCB"].astype(np.int8)}), "weight and SCB are"),
        ("gptq4", lambda t: t.update({"layer.qweight": t["layer.qweight"].astype(np.float32)}), "of other sizes or"),
        ("gptq4", lambda t: t.update({"layer.scales": t["layer.scales"][0]}), "qweight or scales are no matrices"),
        ("awq", cut("layer.qweight"), None),  # its last group is shorter
        (
            "awq",
            lambda t: t.update({"layer.qweight": t["layer.qweight"][:64]}),
            "3 groups of 64 inputs, not groups of 32",
        ),
        ("awq", cut("layer.scales"), "of other sizes or dtypes than 4 bits ask for"),
    ],
)
def test_tensors_that_do_not_go_together_are_named(folder, name, change, message):
    place = folder(name)
    rewrite(place, change)
    if message is None:  # fewer inputs: another weight, which a model refuses by its shape
        assert QuantizedFiles(place, FORMATS[name]).tensors["layer.weight"].shape == (32, 95)
        return
    with pytest.raises(InputError, match=message) as error:
        QuantizedFiles(place, FORMATS[name])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("scales", "tile", "message"),
    [
        (np.ones((4, 2), np.float32), (16, 16), r"its scales \(4, 2\) are not one for each tile of 16 x 16"),
        (np.ones((4, 4), np.float32), None, r"its scales \(4, 4\) are not one for each tile of 64 x 64"),
        (np.ones((4, 4), np.int8), (16, 16), "its scales are no numbers"),
        (np.ones((1, 64, 1), np.float32), (16, 16), "are not one for each tile of 16 x 16"),
    ],
)
def test_scales_that_do_not_fit_are_named(tmp_path, scales, tile, message):
    write(tmp_path, {"layer.weight": fp8(64, 64, None)[0], "layer.weight_scale_inv": scales})
    with pytest.raises(InputError, match=message):
        QuantizedFiles(tmp_path, Quantization("fp8", tile=tile))


def test_what_a_config_says():
    said = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": True, "sym": False}
    assert read_quantization(said, "", None) == Quantization("gptq", 4, 64, True)
    assert read_quantization(said | {"checkpoint_format": "gptq_v2", "group_size": -1}, "", None).group == 0
    assert not read_quantization(said | {"checkpoint_format": "gptq_v2"}, "", None).one_below
    said = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "GEMM"}
    assert read_quantization(said, "", None) == Quantization("awq", 4, 128)
    assert not read_quantization({"quant_method": "gptq", "bits": 4, "format": "gptq_v2"}, "", None).one_below
    assert read_quantization({"quant_method": "fp8"}, "", None).tile == (128, 128)
    said = {"quant_method": "fp8", "weight_block_size": [128, 64], "activation_scheme": "dynamic"}
    assert read_quantization(said, "", None).tile == (128, 64)
    assert read_quantization(said | {"weight_block_size": None}, "", None).tile is None
    assert read_quantization({"quant_method": "mxfp4"}, "", "mxfp4").method == "mxfp4"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], r"\[\] is not read; name a model in one of bitsandbytes, gptq, awq, fp8, or the plain one"),
        ({"bits": 4}, "{'bits': 4} is not read"),
        ({"quant_method": ["gptq"]}, r"of quant_method \['gptq'\] is not read"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "of quant_method compressed-tensors is not read"),
        ({"quant_method": "gptq", "bits": 4, "format": "marlin"}, "format 'marlin' is not supported"),
        ({"quant_method": "awq", "format": "gemv"}, "format 'gemv' is not supported"),
        ({"quant_method": "awq", "backend": "llm-awq"}, "backend 'llm-awq' is not supported"),
        ({"quant_method": "gptq"}, "lacks bits"),
        ({"quant_method": "gptq", "bits": 3}, r"bits 3 is not what is read \(2, 4, 8\)"),
        ({"quant_method": "gptq", "bits": "4"}, "bits '4' is no integer"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0.5}, "group_size 0.5 is no integer"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format 'marlin' is not supp"),
        ({"quant_method": "awq", "bits": 8}, r"bits 8 is not what is read \(4\)"),
        ({"quant_method": "awq", "version": "gemv"}, "version 'gemv' is not supported"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "no pair of whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": [128, 0.5]}, "no pair of whole numbers"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "is no list of numbers"),
    ],
)
def test_another_method_or_variant_is_refused(said, message):
    with pytest.raises(InputError, match=message) as error:
        read_quantization(said, "config.json: quantization_config", None)
    assert "\n" not in str(error.value)
