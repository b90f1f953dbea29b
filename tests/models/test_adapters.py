"""Adapters against the real PEFT, both ways: LoRA, rsLoRA and DoRA."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from fit_jax.conversion.parity import probe_logits, probe_tokens
from fit_jax.errors import InputError, RunFailed
from fit_jax.models.adapter_config import peft_config, resolve_lora
from fit_jax.models.adapters import load_adapter, trained_adapter, write_adapter
from fit_jax.models.config import EXPERT_PROJECTIONS, PROJECTIONS, DecoderConfig, ModelConfig
from fit_jax.models.decoder import Decoder
from fit_jax.models.export import save_merged
from fit_jax.models.linear_config import LINEAR_PROJECTIONS, LINEAR_PROJECTIONS_BY_HEAD
from fit_jax.models.lora import LoraParam
from fit_jax.models.lora_config import LoraConfig
from fit_jax.models.model_folder import resolve_model
from fit_jax.models.weights import load_weights

from ..closeness import apart, assert_close
from .hugging_face import random_model, saved, stored_tensors, their_logits

KINDS = {
    "lora": LoraConfig(rank=4, alpha=16.0, targets=("q_proj", "v_proj", "down_proj")),
    "rslora": LoraConfig(rank=4, alpha=6.0, rslora=True),
    "dora": LoraConfig(rank=2, alpha=8.0, dora=True),
    "experts": LoraConfig(rank=4, alpha=16.0, dropout=0.0, experts=True),
}


# Phi-3 has fused projections, whose adapters PEFT knows as one.
BASES = (
    "llama",
    "phi4_mini",
    "qwen3_moe",
    "mixtral",
    "olmoe",
    "gpt_oss",
    "gemma4",
    "gemma4_e2b",
    "gemma4_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_next",
)
DENSE = ("lora", "rslora", "dora")
WRITTEN = [("llama", kind) for kind in DENSE] + [
    ("qwen3_moe", "rslora"),
    ("qwen3_moe", "experts"),
    ("mixtral", "experts"),
    pytest.param("olmoe", "experts", marks=pytest.mark.slow),
    ("gpt_oss", "lora"),
    ("gpt_oss", "experts"),
    ("qwen3_5_moe", "experts"),
    pytest.param("qwen3_next", "experts", marks=pytest.mark.slow),
    *(pytest.param("qwen3_5_moe", kind, marks=pytest.mark.slow) for kind in ("lora", "dora")),
    pytest.param("qwen3_next", "rslora", marks=pytest.mark.slow),
    pytest.param("gemma4_moe", "experts", marks=pytest.mark.slow),
    ("gemma4", "lora"),
    pytest.param("gemma4_e2b", "rslora", marks=pytest.mark.slow),
    pytest.param("gemma4_moe", "rslora", marks=pytest.mark.slow),
    ("qwen3_5", "dora"),
    *(pytest.param("qwen3_5", kind, marks=pytest.mark.slow) for kind in ("lora", "rslora")),
    ("phi4_mini", "dora"),
    *(pytest.param("phi4_mini", kind, marks=pytest.mark.slow) for kind in ("lora", "rslora")),
]
MADE = [("llama", kind) for kind in DENSE] + [
    ("qwen3_moe", "lora"),
    ("gpt_oss", "rslora"),
    ("qwen3_5_moe", "lora"),
    pytest.param("qwen3_next", "rslora", marks=pytest.mark.slow),
    ("gemma4_e2b", "lora"),
    pytest.param("gemma4", "dora", marks=pytest.mark.slow),
    pytest.param("gemma4_moe", "lora", marks=pytest.mark.slow),
    *(pytest.param("qwen3_5", kind, marks=pytest.mark.slow) for kind in DENSE),
    ("phi4_mini", "lora"),
    *(pytest.param("phi4_mini", kind, marks=pytest.mark.slow) for kind in ("dora", "rslora")),
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: saved(random_model(family), tmp_path_factory.mktemp(family)) for family in BASES}


@pytest.fixture
def base(bases):
    return bases["llama"]


def split(model: DecoderConfig, lora: LoraConfig):
    """Structure, adapter and base shapes of an adapted decoder, on the default device."""
    decoder = nnx.eval_shape(lambda: Decoder(model, lora, rngs=nnx.Rngs(0)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    graphdef, *states = nnx.split(decoder, LoraParam, ...)
    return graphdef, *jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), states)


def asked(family: str, kind: str) -> LoraConfig:
    """An adapter that the family can have."""
    targets = (*PROJECTIONS[:3], *PROJECTIONS[4:]) if family == "phi4_mini" else KINDS[kind].targets
    if family in ("qwen3_moe", "gpt_oss") and kind != "experts":
        targets = tuple(name for name in targets if name not in EXPERT_PROJECTIONS)
    if family in ("qwen3_5", "qwen3_5_moe") and kind != "lora":
        targets = (*PROJECTIONS, *LINEAR_PROJECTIONS)
    if family == "qwen3_next":
        targets = (*PROJECTIONS, *LINEAR_PROJECTIONS_BY_HEAD)
    return dataclasses.replace(KINDS[kind], targets=targets)


@pytest.mark.parametrize(("family", "kind"), WRITTEN)
def test_an_adapter_written_here_computes_the_same_in_peft(bases, family, kind, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = bases[family]
    model = resolve_model(ModelConfig(pretrained=str(base)))
    lora = resolve_lora(asked(family, kind), model)
    graphdef, adapter, frozen = split(model, lora)
    generator = np.random.default_rng(0)
    trained = jax.tree.map(lambda a: jax.numpy.asarray(generator.normal(0, 0.1, a.shape), a.dtype), adapter)
    params = (trained, load_weights(model, frozen))
    write_adapter(tmp_path, trained_adapter(nnx.merge(graphdef, *params), lora))

    tokens = probe_tokens(model)
    ours = probe_logits(graphdef, params, tokens)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path).eval()
    assert_close(ours, their_logits(theirs, tokens), tolerance=1e-4)
    # And merged, as a serving engine would take it.
    (tmp_path / "merged").mkdir()
    save_merged(tmp_path / "merged", nnx.merge(graphdef, *params), np.dtype(np.float32))
    merged = stored_tensors(saved(theirs.merge_and_unload(), tmp_path / "theirs"))
    for name, value in stored_tensors(tmp_path / "merged").items():
        assert_close(value, merged[name], tolerance=1e-5, err_msg=name)


@pytest.mark.parametrize(("family", "kind"), MADE)
def test_an_adapter_made_by_peft_computes_the_same_here(bases, family, kind, tmp_path):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    base, lora = bases[family], asked(family, kind)
    if family == "qwen3_next":  # of which PEFT takes these for the experts'
        lora = dataclasses.replace(lora, targets=tuple(name for name in lora.targets if name not in EXPERT_PROJECTIONS))
    fused = ["qkv_proj", "gate_up_proj", "down_proj"]
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=fused if family == "phi4_mini" else list(lora.targets),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
    )
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    torch.manual_seed(0)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, mean=1.0 if "magnitude" in name else 0.0, std=0.2)
    theirs.save_pretrained(tmp_path)

    model = resolve_model(ModelConfig(pretrained=str(base)))
    found = resolve_lora(LoraConfig(adapter=str(tmp_path)), model)
    assert dataclasses.replace(found, adapter=None, dropout=lora.dropout) == lora
    graphdef, adapter, frozen = split(model, found)
    params = (load_adapter(found, model, adapter), load_weights(model, frozen))
    tokens = probe_tokens(model)
    expected = their_logits(theirs, tokens)
    assert_close(probe_logits(graphdef, params, tokens), expected, tolerance=1e-4)


# Besides what is adapted by name, parameters of experts as PEFT is told of them, by whole names or the ends of them.
BY_PARAMETER = {
    "qwen3_moe": (["q_proj"], ["mlp.experts.gate_up_proj", "down_proj"]),
    "gpt_oss": (["v_proj", "o_proj"], ["gate_up_proj", "down_proj"]),
    "qwen3_5_moe": (["out_proj", "k_proj"], ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    "mixtral": (["q_proj"], ["experts.gate_up_proj"]),
    "gemma4_moe": (["up_proj"], ["experts.gate_up_proj", "experts.down_proj"]),
    "qwen3_next": ([], ["experts.down_proj", "shared_expert.up_proj.weight", "mlp.shared_expert.down_proj.weight"]),
}


@pytest.mark.parametrize(
    "family",
    ["gpt_oss", "qwen3_moe", *(pytest.param(n, marks=pytest.mark.slow) for n in [*BY_PARAMETER][2:])],
)
def test_parameters_of_experts_that_peft_adapts_compute_the_same_here(bases, family, tmp_path):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    base, (modules, parameters) = bases[family], BY_PARAMETER[family]
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=modules, target_parameters=parameters)
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    torch.manual_seed(0)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")

    model = resolve_model(ModelConfig(pretrained=str(base)))
    found = resolve_lora(LoraConfig(adapter=str(tmp_path / "theirs")), model)
    found.check()
    assert (found.rank, found.alpha, found.experts) == (2, 6.0, True)
    graphdef, adapter, frozen = split(model, found)
    params = (load_adapter(found, model, adapter), load_weights(model, frozen))
    tokens = probe_tokens(model)
    expected = their_logits(theirs, tokens)
    assert_close(probe_logits(graphdef, params, tokens), expected, tolerance=1e-4)
    with theirs.disable_adapter():
        assert apart(their_logits(theirs, tokens), expected) > 1e-2
    # And written again, in the form that is ours.
    (tmp_path / "ours").mkdir()
    write_adapter(tmp_path / "ours", trained_adapter(nnx.merge(graphdef, *params), found))


def test_ranks_that_peft_gave_to_pairs_by_their_names_are_refused(bases, tmp_path):
    import peft
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(r=2, target_modules=["gate_proj", "up_proj", "down_proj"])
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(bases["qwen3_moe"]), config).save_pretrained(tmp_path)
    model = resolve_model(ModelConfig(pretrained=str(bases["qwen3_moe"])))
    with pytest.raises(InputError, match=r"rank_pattern .* is not supported"):
        resolve_lora(LoraConfig(adapter=str(tmp_path)), model)


@pytest.fixture
def written(base, tmp_path):
    model = resolve_model(ModelConfig(pretrained=str(base)))
    lora = KINDS["lora"]
    graphdef, adapter, frozen = split(model, lora)
    ones = jax.tree.map(lambda a: jax.numpy.ones(a.shape, a.dtype), (adapter, frozen))
    write_adapter(tmp_path, trained_adapter(nnx.merge(graphdef, *ones), lora))
    return tmp_path, model, graphdef, adapter


def test_an_adapter_of_experts_is_told_in_names_that_peft_has(bases):
    model, lora = resolve_model(ModelConfig(pretrained=str(bases["mixtral"]))), LoraConfig(rank=4, experts=True)
    written = peft_config(resolve_lora(lora, model), model)
    assert written["target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w3", "w2"]
    assert lora.dropout > 0
    assert written["lora_dropout"] == 0.0
    assert peft_config(dataclasses.replace(lora, experts=False, targets=("q_proj",)), model)["lora_dropout"] == 0.05


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target_parameters": ["mlp.gate.weight"]},
            r"target_parameters 'mlp.gate.weight' is none of mlp.experts.gate_up_proj, mlp.experts.down_proj",
        ),
        ({"use_rslora": True}, "use_rslora is not supported where experts are adapted"),
        ({"use_dora": True}, "use_dora is not supported where experts are adapted"),
        ({"target_modules": ["gate", "w1"]}, "adapts gate; only q_proj, k_proj, v_proj, o_proj, w1, w3, w2 can be"),
    ],
)
def test_adapters_of_experts_in_other_forms_are_refused(bases, tmp_path, changes, message):
    model = resolve_model(ModelConfig(pretrained=str(bases["mixtral"])))
    config = peft_config(resolve_lora(LoraConfig(rank=4, experts=True), model), model) | changes
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.model.layers.0.block_sparse_moe.gate.lora_A.weight": np.zeros((4, 32), np.float32)},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(InputError, match=message):
        resolve_lora(LoraConfig(adapter=str(tmp_path)), model)


def test_a_plan_asks_the_config_alone_what_is_adapted(written):
    folder, model, *_ = written
    asked = LoraConfig(adapter=str(folder))
    whole = resolve_lora(asked, model)
    (folder / "adapter_model.safetensors").unlink()
    assert resolve_lora(asked, model) == whole
    assert whole.targets == KINDS["lora"].targets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
        ({"bias": "all"}, "bias 'all' is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
    ],
)
def test_peft_settings_that_are_not_supported_are_named(written, change, message):
    folder, model, _, _ = written
    deep = folder / ("f" * 200)  # of which the line shows the end
    deep.mkdir()
    content = json.loads((folder / "adapter_config.json").read_text())
    (deep / "adapter_config.json").write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=rf"^\.\.\.f+/adapter_config\.json: .*{message}"):
        resolve_lora(LoraConfig(adapter=str(deep)), model)


def test_an_adapter_of_another_model_is_an_error(written):
    folder, model, _, _ = written
    deep = folder / ("f" * 200)  # of which the line shows the end
    deep.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).rename(deep / name)
    lora = resolve_lora(LoraConfig(adapter=str(deep)), model)
    deeper = dataclasses.replace(model, layers=4)
    with pytest.raises(InputError, match=r"^\.\.\.f+: .* missing: .*layers\.3"):
        load_adapter(lora, deeper, split(deeper, lora)[1])
    wider = dataclasses.replace(model, width=64)
    with pytest.raises(InputError, match=r"^\.\.\.f+: .*the model asks for"):
        load_adapter(lora, wider, split(wider, lora)[1])


def test_parts_of_a_fused_projection_are_adapted_together(bases, tmp_path):
    model = resolve_model(ModelConfig(pretrained=str(bases["phi4_mini"])))
    with pytest.raises(InputError, match="q_proj, k_proj, v_proj as one qkv_proj; name all of them or none"):
        resolve_lora(LoraConfig(rank=2, targets=("q_proj", "v_proj")), model)
    lora = asked("phi4_mini", "lora")
    graphdef, adapter, frozen = split(model, lora)
    ones = jax.tree.map(lambda a: jax.numpy.ones(a.shape, a.dtype), (adapter, frozen))
    write_adapter(tmp_path, trained_adapter(nnx.merge(graphdef, *ones), lora))
    file = tmp_path / "adapter_model.safetensors"
    tensors = stored_tensors(tmp_path)
    name = next(name for name in tensors if name.endswith("qkv_proj.lora_B.weight"))
    tensors[name][0, -1] = 1  # a query that takes from the rank of the values
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"qkv_proj.lora_B.*mixes them"):
        load_adapter(resolve_lora(LoraConfig(adapter=str(tmp_path)), model), model, adapter)


def test_an_adapter_that_does_nothing_is_not_written(written, tmp_path):
    _, model, graphdef, adapter = written
    zeros = jax.tree.map(lambda a: jax.numpy.zeros(a.shape, a.dtype), adapter)
    frozen = split(model, KINDS["lora"])[2]
    with pytest.raises(RunFailed, match="every B of the adapter is zero"):
        write_adapter(tmp_path / "new", trained_adapter(nnx.merge(graphdef, zeros, frozen), KINDS["lora"]))


def test_what_cannot_be_adapted_is_named(tiny):
    with pytest.raises(InputError, match=r"lora.targets: lm_head: no such projection"):
        resolve_lora(LoraConfig(rank=2, targets=("lm_head",)), tiny)
    with pytest.raises(InputError, match=r"lora.targets: out_proj: no such projection; choose .*, down_proj$"):
        resolve_lora(LoraConfig(rank=2, targets=("q_proj", "out_proj")), tiny)
    with pytest.raises(InputError, match=r"cannot be fully fine-tuned; set lora.rank"):
        resolve_lora(LoraConfig(), dataclasses.replace(tiny, quantize="nf4"))
