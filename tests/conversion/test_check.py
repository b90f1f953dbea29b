"""Parity with transformers: a model that is read right passes, one that is not fails where it differs."""

import jax
import pytest

from fit_jax.conversion import check
from fit_jax.conversion.check import check_parity, print_parity
from fit_jax.errors import InputError
from fit_jax.models.config import DecoderConfig

pytest.importorskip("torch", reason="compares with transformers on PyTorch: pip install torch")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder as transformers writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    shape = {"vocab_size": 96, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    LlamaForCausalLM(LlamaConfig(**shape, **heads)).save_pretrained(folder)
    return folder


def test_a_model_passes_unless_its_weights_are_others(llama, monkeypatch, capsys):
    rows = check_parity(str(llama))
    assert [row.passed for row in rows] == [True] * 4
    assert rows[-1].what == "same greedy 64 tokens"
    load = check.load_weights

    def mistaken(model: DecoderConfig, shapes):
        """The output layer's weights stand under the wrong sign."""
        state = load(model, shapes)
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: -leaf if "lm_head" in jax.tree_util.keystr(path) else leaf, state
        )

    monkeypatch.setattr(check, "load_weights", mistaken)
    rows = check_parity(str(llama))
    assert [row.passed for row in rows] == [False, True, False, False]
    print_parity(rows)
    assert capsys.readouterr().out.count("FAILED") == 3


def test_an_adapter_alone_is_no_model_to_check(llama, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((llama / name).read_bytes())
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter"):
        check_parity(str(tmp_path))
