"""The names of a family's tensors: from a parameter of the decoder to where Hugging Face stores it."""

from fit_jax.models.config import DecoderConfig
from fit_jax.models.families.family import FamilyTraits, Source
from fit_jax.parallel.sharding import is_stacked

LAYER_PREFIX = "model.layers."
_WHOLE = {
    "embed.embedding": Source("model.embed_tokens.weight", False),
    "final_norm.scale": Source("model.norm.weight", False),
    "lm_head.kernel": Source("lm_head.weight", True),
}
_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
_POST_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}


def leading_axes(path: str, config: DecoderConfig) -> int:
    """The axes of a parameter, from the first on, along which its tensors are stacked: layers, then experts."""
    projection = path.split(".")[-2:-1]
    return is_stacked(path) + (projection != [] and projection[0] in config.expert_projections())


def tensor_sources(path: str, config: DecoderConfig, traits: FamilyTraits) -> list[Source]:
    """The tensors that a parameter is made of, in order: one, or for a stacked parameter one a layer.

    The experts' kernels are one parameter: of each layer there is a tensor for every expert, in order.
    """
    if path in _WHOLE:
        return [_WHOLE[path]]
    part, _, rest = path.partition(".")
    layers = range(config.layers - 1) if part == "blocks" else (config.layers - 1,)
    module, _, leaf = rest.rpartition(".")
    if config.experts and module.startswith("mlp."):
        projection = module.removeprefix("mlp.")
        names = [traits.experts[projection]]
        if projection in config.expert_projections():
            names = [names[0].format(expert) for expert in range(config.experts)]
        return [Source(f"{LAYER_PREFIX}{layer}.{name}.weight", True) for layer in layers for name in names]
    first, rows = 0, None
    for whole, parts in traits.fused.items():
        around, _, projection = module.rpartition(".")
        if around == whole.rpartition(".")[0] and projection in parts:
            outputs = [config.projection_shapes()[name][1] for name in parts]
            first, rows = sum(outputs[: parts.index(projection)]), sum(outputs)
            module = whole
            break
    if module.startswith("attention."):
        module = module.replace("attention.", "self_attn.", 1)
    else:
        module = (_POST_NORMS if config.post_norms else _NORMS).get(module, module)
    name = f"{module}.{'bias' if leaf == 'bias' else 'weight'}"
    return [Source(f"{LAYER_PREFIX}{layer}.{name}", leaf == "kernel", first, rows) for layer in layers]
