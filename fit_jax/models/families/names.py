"""The names of a family's tensors: from a parameter of the decoder to where Hugging Face stores it."""

from fit_jax.models.config import EXPERT_PROJECTIONS, DecoderConfig
from fit_jax.models.families.family import FamilyTraits, Source
from fit_jax.models.layer_kinds import all_stacks
from fit_jax.parallel.sharding import is_stacked

LAYER_PREFIX = "model.layers."
_EACH = "{}"  # stands for an expert
_WHOLE = {
    "embed.embedding": Source("model.embed_tokens.weight", False),
    "final_norm.scale": Source("model.norm.weight", False),
    "lm_head.kernel": Source("lm_head.weight", True),
    "layer_inputs.embedding": Source("model.embed_tokens_per_layer.weight", False),
    "layer_inputs.projection.kernel": Source("model.per_layer_model_projection.weight", True),
    "layer_inputs.norm.scale": Source("model.per_layer_projection_norm.weight", False),
}
_MORE = {
    "beside.dense_out_norm": "post_feedforward_layernorm_1",
    "beside.norm": "pre_feedforward_layernorm_2",
    "beside.out_norm": "post_feedforward_layernorm_2",
    "beside.gate": "mlp.shared_expert_gate",
    "layer_input.gate": "per_layer_input_gate",
    "layer_input.projection": "per_layer_projection",
    "layer_input.norm": "post_per_layer_input_norm",
}
# Tensors that are named without a module.
_ALONE = {
    "attention.sinks": "self_attn.sinks",
    "layer_scale": "layer_scalar",
    "beside.router_scale": "router.scale",
    "beside.expert_scale": "router.per_expert_scale",
    "linear_attention.log_rate": "linear_attn.A_log",
    "linear_attention.step_bias": "linear_attn.dt_bias",
    "linear_attention.conv": "linear_attn.conv1d.weight",
}
# Where their names begin alike.
_BEGINNINGS = {"attention.": "self_attn.", "linear_attention.": "linear_attn."}
_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
_POST_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}


def leading_axes(path: str, config: DecoderConfig, traits: FamilyTraits) -> int:
    """The axes of a parameter, from the first on, along which its tensors are stacked: layers, then experts."""
    *modules, projection, _ = ("", *path.split("."))
    of_experts = projection in EXPERT_PROJECTIONS and (modules[-1] == "experts" or not config.expert_width)
    return is_stacked(path) + (config.experts > 0 and of_experts and _EACH in traits.experts[projection])


def tensor_sources(path: str, config: DecoderConfig, traits: FamilyTraits) -> list[Source]:
    """The tensors that a parameter is made of, in order: one, or for a stacked parameter one a layer.

    The experts' kernels are one parameter: of each layer there is a tensor for every expert, in order, or one of all.
    """
    if path in _WHOLE:
        return [_WHOLE[path]]
    part, _, rest = path.partition(".")
    layers = all_stacks(config.scanned_kinds())[part].layers if is_stacked(path) else (config.layers - 1,)
    module, _, leaf = rest.rpartition(".")
    experts = "beside.experts." if config.expert_width else "mlp."
    if config.experts and module.startswith(experts):
        found = _expert_sources(module.removeprefix(experts), leaf, config, traits)
        return [source._replace(name=f"{LAYER_PREFIX}{layer}.{source.name}") for layer in layers for source in found]
    first, whole_outputs = 0, None
    for whole, parts in traits.fused.items():
        around, _, projection = module.rpartition(".")
        if around == whole.rpartition(".")[0] and projection in parts:
            shapes = config.projection_shapes(config.kind(layers[0]))
            outputs = [shapes[name][1] for name in parts]
            first, whole_outputs = sum(outputs[: parts.index(projection)]), sum(outputs)
            module = whole
            break
    beginnings = _BEGINNINGS | ({"mlp.": "mlp.shared_expert."} if config.shared_expert else {})
    if ours := next((ours for ours in beginnings if module.startswith(ours)), None):
        module = beginnings[ours] + module.removeprefix(ours)
    else:
        module = {**(_POST_NORMS if config.post_norms else _NORMS), **_MORE}.get(module, module)
    name = _ALONE.get(rest, f"{module}.{'bias' if leaf == 'bias' else 'weight'}")
    return [Source(f"{LAYER_PREFIX}{layer}.{name}", leaf == "kernel", first, whole_outputs) for layer in layers]


def _expert_sources(projection: str, leaf: str, config: DecoderConfig, traits: FamilyTraits) -> list[Source]:
    """Where one layer's router, or a projection of its experts, comes from, without the layer's prefix."""
    name, kernel = traits.experts[projection], leaf == "kernel"
    if projection not in EXPERT_PROJECTIONS:
        return [Source(f"{name}.{'weight' if kernel else 'bias'}", kernel)]
    if _EACH in name:
        return [Source(f"{name.format(expert)}.weight", True) for expert in range(config.experts)]
    sharing = [other for other in EXPERT_PROJECTIONS if traits.experts[other] == name]
    shapes = config.projection_shapes(config.kind(0))
    own = shapes.get(f"experts.{projection}", shapes[projection])[1]
    outputs = len(sharing) * own
    if traits.experts_turned:
        return [Source(name, True, sharing.index(projection) * own, outputs)]
    return [Source(name if kernel else f"{name}_bias", False, sharing.index(projection), outputs, len(sharing))]
