"""Files that hold the experts of a layer in one tensor, as the makers of Qwen 3.5 publish them."""

import numpy as np
import pytest

from fit_jax.errors import InputError
from fit_jax.models.config import ModelConfig
from fit_jax.models.model_folder import resolve_model
from fit_jax.models.weights import abstract_parameters, load_weights
from fit_jax.parallel.sharding import named_leaves

from .hugging_face import random_model, rewrite, saved


def stacked(tensors: dict[str, np.ndarray]) -> None:
    """Puts the experts of each layer into one tensor, as the makers of Qwen 3.5 publish them."""
    for layer in range(4):
        stem = f"model.layers.{layer}.mlp.experts"

        def of(name, stem=stem):
            return np.stack([tensors.pop(f"{stem}.{expert}.{name}.weight") for expert in range(5)])

        tensors[f"{stem}.gate_up_proj"] = np.concatenate([of("gate_proj"), of("up_proj")], axis=1)
        tensors[f"{stem}.down_proj"] = of("down_proj")


@pytest.fixture
def folder(tmp_path):
    return saved(random_model("qwen3_5_moe"), tmp_path / "model")


def parameters(folder) -> dict[str, np.ndarray]:
    model = resolve_model(ModelConfig(pretrained=str(folder)))
    return named_leaves(load_weights(model, abstract_parameters(model)[1]))


def test_experts_of_a_layer_in_one_tensor_are_read_as_each_by_itself(folder):
    plain = parameters(folder)
    rewrite(folder, lambda tensors: (stacked(tensors), tensors.update({"mtp.fc.weight": np.ones((2, 2))})))
    for name, value in parameters(folder).items():
        np.testing.assert_array_equal(value, plain[name], name)


def test_a_tensor_of_no_experts_is_told(folder):
    def misshape(tensors):
        stacked(tensors)
        tensors["model.layers.0.mlp.experts.gate_up_proj"] = np.ones((5, 3, 48), np.float32)

    rewrite(folder, misshape)
    with pytest.raises(InputError, match=r"experts.gate_up_proj has shape \(5, 3, 48\), and not that of gate_proj and"):
        parameters(folder)

    def lack(tensors):
        tensors["model.layers.0.mlp.experts.gate_up_proj"] = np.ones((4, 48, 48), np.float32)

    rewrite(folder, lack)
    with pytest.raises(InputError, match=r"missing: .*experts\.4\."):
        parameters(folder)
