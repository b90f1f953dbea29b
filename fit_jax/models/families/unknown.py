"""What is said of a model of a family that there is not: what the decoder lacks for it, and the nearest family."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from fit_jax.errors import InputError
from fit_jax.foreign import Fields, quoted

# By fields of config.json that only such a model has, in the order in which they are reported.
_LACKS = {
    "its mixture of experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size"),
    "latent attention": ("kv_lora_rank",),
    "its state-space or linear-attention layers": (
        "state_size",
        "mamba_d_state",
        "linear_num_value_heads",
        "linear_conv_kernel_dim",
        "conv_L_cache",
    ),
    "several residual streams": ("altup_num_inputs", "laurel_rank"),
    "an encoder": ("is_encoder_decoder", "encoder_layers", "d_kv"),
    "other inputs than text": ("vision_config", "audio_config", "image_token_id", "image_token_index"),
    "LayerNorm and learnt positions": ("layer_norm_epsilon", "n_positions"),
    "LayerNorm": ("layer_norm_eps", "layer_norm_epsilon"),
}


def unknown_family(hf: Mapping[str, Any], where: str, known: Iterable[str]) -> InputError:
    """The error of a `config.json` whose `model_type` is none of the known families."""
    names = list(known)
    if not isinstance(hf.get("model_type"), str):
        return _not_a_name(hf, where, names)
    name = hf["model_type"]
    given = {field for field, value in hf.items() if value not in (None, False, 0)}
    lacks = next((what for what, fields in _LACKS.items() if given & {*fields}), None)
    text = hf.get("text_config")
    part = text.get("model_type") if isinstance(text, Mapping) else None
    near = part if part in names else _nearest(name, names)
    why = f"the decoder lacks {lacks}" if lacks else "the decoder may lack what its layers compute"
    return InputError(
        f"{where}: model_type {quoted(name)} is not supported: {why}; the nearest that it has is "
        f"{near}; supported: {', '.join(names)}"
    )


def _nearest(name: str, known: list[str]) -> str:
    """The family whose name is most like it, of the same maker where it has some; Llama where none is."""
    maker = name.split("_")[0].rstrip("0123456789")
    if kin := [family for family in known if maker and family.startswith(maker)]:
        return (difflib.get_close_matches(name, kin, n=1) or kin[-1:])[0]
    return (difflib.get_close_matches(name, known, n=1) or ["llama"])[0]


def _not_a_name(hf: Mapping[str, object], where: str, names: list[str]) -> InputError:
    try:
        Fields(hf, where).choice("model_type", names)
    except InputError as error:
        return error
    raise AssertionError("of a value that is no text")
