"""What a decoder is: shapes and switches of the one architecture."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.models.rope_config import RopeConfig
from fit_jax.plugins import plugin_names

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

EXPERT_PROJECTIONS = PROJECTIONS[4:]


# Fields of a model that are numbers above 0, where they are given.
POSITIVE = (
    "norm_epsilon",
    "sliding_theta",
    "query_scale",
    "attention_softcap",
    "logit_softcap",
    "embed_multiplier",
    "residual_multiplier",
    "logit_divisor",
    "attention_multiplier",
    "swiglu_alpha",
    "swiglu_limit",
)

# Largest sizes that are believed, in a config here as in a `config.json`: a thousand times those of today's models.
LARGEST = {
    "layers": 1 << 12,
    "width": 1 << 20,
    "feed_forward": 1 << 23,
    "experts": 1 << 12,
    "heads": 1 << 16,
    "kv_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 24,
    "window": 1 << 31,
}

# The families of this package, each a module of `fit_jax.models.families`; others come from entry points
# (`fit_jax.plugins`).
Family = Literal[
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "smollm3",
    "olmo2",
    "olmo3",
    "phi3",
    "granite",
    "ministral",
    "ministral3",
    "mixtral",
    "qwen3_moe",
    "olmoe",
    "gpt_oss",
]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder. Defaults are the demo's tiny model, trained from scratch."""

    # Hugging Face folder, hub id or folder of an imported model; null means random weights of the shape below.
    pretrained: str | None = None
    # Hugging Face model type whose names and config an export uses; of this package or of another one.
    family: str = "llama"
    # Layer count L.
    layers: int = 2
    # Model width D.
    width: int = 96
    # Feed-forward width F.
    feed_forward: int = 256
    # Experts E in place of each layer's feed-forward part, every one of width F; 0 means none.
    experts: int = 0
    # Experts that a token goes to: those that the router scores highest.
    experts_per_token: int = 2
    # The scores of a token's experts are divided by their sum (Mixtral).
    normalize_router: bool = True
    # Biases of the router and of the experts' projections (gpt-oss).
    experts_bias: bool = False
    # Query heads H.
    heads: int = 4
    # Key/value heads K.
    kv_heads: int = 4
    # Head width G; null means width / heads.
    head_dim: int | None = None
    # Vocabulary size V; null means the tokenizer's.
    vocab_size: int | None = None
    # Input and output embeddings are one matrix.
    tied: bool = False
    # Added to the mean square in RMSNorm.
    norm_epsilon: float = 1e-5
    rope: RopeConfig = field(default_factory=RopeConfig)
    # RoPE theta of sliding layers, unscaled (Gemma 3, OLMo 3); null means they rotate as all others.
    sliding_theta: float | None = None
    # Tokens a query of a sliding layer sees, itself included; null means no layer slides.
    window: int | None = None
    # Indices of the sliding layers; null means every layer where `window` is set.
    sliding_layers: tuple[int, ...] | None = None
    # Indices of layers without rotary embedding (SmolLM3); null means none.
    nope_layers: tuple[int, ...] | None = None
    # Biases on the query, key and value projections (Qwen 2).
    qkv_bias: bool = False
    # Bias on attention's output projection (gpt-oss).
    o_bias: bool = False
    # A learned score of each head to which attention may go instead of to a key (gpt-oss).
    attention_sinks: bool = False
    # RMSNorm over the head width of queries and keys, before RoPE (Qwen 3, Gemma 3, OLMo 2).
    qk_norm: bool = False
    # These norms run over all heads of a token together (OLMo 2).
    qk_norm_whole: bool = False
    # Gate of the feed-forward layer: SwiGLU (`silu`), GeGLU with the tanh approximation (`gelu_tanh`), or gpt-oss'
    # SwiGLU of inputs between limits (`clamped_swiglu`).
    activation: Literal["silu", "gelu_tanh", "clamped_swiglu"] = "silu"
    # Factor within the sigmoid of `clamped_swiglu`.
    swiglu_alpha: float = 1.702
    # Largest gate, and largest magnitude of what it multiplies, of `clamped_swiglu`.
    swiglu_limit: float = 7.0
    # Norms on the inputs of attention and feed-forward (all but OLMo 2).
    pre_norms: bool = True
    # Norms on the outputs of attention and feed-forward (Gemma, OLMo 2).
    post_norms: bool = False
    # Norms scale by 1 + weight (Gemma).
    norm_offset: bool = False
    # Embeddings are multiplied by sqrt(width) (Gemma).
    embed_scale: bool = False
    # Factor on embeddings (Granite).
    embed_multiplier: float = 1.0
    # Factor on the outputs of attention and feed-forward (Granite).
    residual_multiplier: float = 1.0
    # What logits are divided by (Granite).
    logit_divisor: float = 1.0
    # Factor on attention scores (Granite); null means the one that query_scale gives.
    attention_multiplier: float | None = None
    # Attention scores are divided by the root of this; null means the head width.
    query_scale: float | None = None
    # tanh cap on attention scores (Gemma 2); null means none.
    attention_softcap: float | None = None
    # tanh cap on logits (Gemma 2); null means none.
    logit_softcap: float | None = None
    # Dropout on the embeddings and on each sublayer's output in training from scratch.
    dropout: float = 0.0
    # Parameter dtype: float32 or bfloat16.
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    # Dtype of matrix products and activations: float32 or bfloat16.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    # Storage of the frozen projections under LoRA (QLoRA): `none` (param_dtype), `int8` or `nf4`.
    quantize: Literal["none", "int8", "nf4"] = "none"
    # What the backward pass recomputes: `none` (nothing), `dots` (all but matrix products) or `full` (every layer).
    remat: Literal["none", "dots", "full"] = "dots"
    # Attention: `kernel` (ours, on TPU and GPU), `cudnn` (GPU), `xla`, or `auto`: ours on TPU, cuDNN on GPU.
    attention: Literal["auto", "kernel", "cudnn", "xla"] = "auto"

    def check(self) -> None:
        """Raises InputError for an unknown family, or sizes that no decoder can have."""
        if self.family not in get_args(Family) and self.family not in plugin_names("families"):
            known = (*get_args(Family), *plugin_names("families"))
            raise InputError(f"model.family: {shown(self.family)!r} is unknown; choose among {', '.join(known)}")
        for name in ("layers", "width", "feed_forward", "heads", "kv_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name}: {getattr(self, name)} is less than 1")
        for name in ("head_dim", "vocab_size", "window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"model.{name}: {getattr(self, name)} is less than 1; null stands for none given")
        for name, most in LARGEST.items():
            if (getattr(self, name) or 0) > most:
                raise InputError(f"model.{name}: {getattr(self, name)} is more than {most}, the most that is allowed")
        self.rope.check()
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"model.{name}: {value} is not a number above 0")
        for name in ("sliding_layers", "nope_layers"):
            for layer in getattr(self, name) or ():
                if not 0 <= layer < self.layers:
                    raise InputError(f"model.{name}: there is no layer {layer}; they are 0 to {self.layers - 1}")
        if self.heads % self.kv_heads:
            raise InputError(f"model.heads: {self.heads} heads do not divide into {self.kv_heads} key/value heads")
        if self.experts < 0:
            raise InputError(f"model.experts: {self.experts} is less than 0; 0 stands for none")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise InputError(
                f"model.experts_per_token: {self.experts_per_token} of {self.experts} experts; choose from 1 to all"
            )
        if self.head_dim is None and self.width % self.heads:
            raise InputError(f"model.width: {self.width} does not divide into {self.heads} heads; set model.head_dim")
        if self.head_width % 2:
            raise InputError(f"model.head_dim: {self.head_width} is odd; rotary embedding turns pairs")
        turning = self.rope.rotary_width(self.head_width)
        if turning % 2 or not turning:
            raise InputError(f"model.rope.partial: {self.rope.partial} of {self.head_width} is {turning}, no pairs")
        for name in ("short_factors", "long_factors"):
            count = len(getattr(self.rope, name) or ()) or turning // 2
            if count != turning // 2:
                raise InputError(f"model.rope.{name}: there are {count} for {turning // 2} pairs of a head that turn")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout: {self.dropout} is not in [0, 1)")

    @property
    def head_width(self) -> int:
        """G, given or derived."""
        return self.head_dim or self.width // self.heads

    @property
    def score_scale(self) -> float:
        """The factor on attention scores."""
        return self.attention_multiplier or (self.query_scale or self.head_width) ** -0.5

    def projection_shapes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each projection of a layer; of those of experts, of one."""
        D, F, H, K = self.width, self.feed_forward, self.heads * self.head_width, self.kv_heads * self.head_width
        pairs = ((D, H), (D, K), (D, K), (H, D), (D, F), (D, F), (F, D))
        return dict(zip(PROJECTIONS, pairs))

    def expert_projections(self) -> tuple[str, ...]:
        """The projections that every expert has for itself."""
        return EXPERT_PROJECTIONS if self.experts else ()

    def copies(self, projection: str) -> int:
        """How often a layer has a projection: once, or once an expert."""
        return self.experts if projection in self.expert_projections() else 1

    def uses(self, projection: str) -> int:
        """How many of its copies a token goes through."""
        return self.experts_per_token if projection in self.expert_projections() else 1

    def rotates(self, layer: int) -> bool:
        """Whether the layer turns queries and keys by their positions."""
        return layer not in (self.nope_layers or ())

    def slides(self, layer: int) -> bool:
        """Whether the layer's attention is limited to `window` tokens."""
        return self.window is not None and (self.sliding_layers is None or layer in self.sliding_layers)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ModelConfig):
    """A `ModelConfig` with nothing left open: what a decoder is built from."""

    vocab_size: int  # pyright: ignore[reportGeneralTypeIssues]  (it has no default: no decoder is built without one)


def with_vocabulary(model: ModelConfig, size: int) -> DecoderConfig:
    """The decoder of a model whose vocabulary is `size`, unless the config names one of its own."""
    values: dict[str, Any] = {f.name: getattr(model, f.name) for f in fields(model)}
    values["vocab_size"] = model.vocab_size or size
    return DecoderConfig(**values)
