"""What a decoder is: shapes and switches of the one architecture."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.models.layer_kinds import LayerKind, reused_layers
from fit_jax.models.limits import check_layers, check_numbers
from fit_jax.models.linear_config import LinearConfig
from fit_jax.models.rope_config import RopeConfig
from fit_jax.plugins import plugin_names

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

EXPERT_PROJECTIONS = PROJECTIONS[4:]

# All but those that give a number or two a head.
QUANTIZED_PROJECTIONS = (*PROJECTIONS, "in_proj_qkv", "in_proj_z", "in_proj_qkvz", "out_proj")

# The families of this package, each a module of `fit_jax.models.families`; others come from entry points
# (`fit_jax.plugins`).
Family = Literal[
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
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
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "qwen3_next",
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
    # Width of experts that stand beside the feed-forward part, with a router that scales what it reads and says; null
    # means that they stand in its place (Gemma 4 26B-A4B).
    expert_width: int | None = None
    # The feed-forward part beside the experts is one of them, to which every token goes and which a gate of its own
    # weights by its sigmoid; nothing is scaled or normalised between them (Qwen 3.5's mixture).
    shared_expert: bool = False
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
    # Head width of layers that do not slide; null means that of all (Gemma 4).
    full_head_dim: int | None = None
    # Key/value heads of layers that do not slide; null means those of all (Gemma 4).
    full_kv_heads: int | None = None
    # Values of layers that do not slide are their keys, before norm and RoPE (Gemma 4).
    keys_as_values: bool = False
    # The last layers, so many, attend to the keys and values of the last one before them that slides as they do, or
    # that does not either (Gemma 4 E2B and E4B).
    sharing_layers: int = 0
    # Feed-forward width of these; null means that of all.
    sharing_feed_forward: int | None = None
    # Width P of what each layer reads of the tokens besides the residual stream; 0 means nothing (Gemma 4 E2B and E4B).
    layer_input: int = 0
    # Vocabulary of its embeddings; null means that of all.
    layer_input_vocab: int | None = None
    # Layers that keep a state where others attend.
    linear: LinearConfig = field(default_factory=LinearConfig)
    # What a head gathers is multiplied by the sigmoid of a gate, which the query projection gives too (Qwen 3.5).
    output_gate: bool = False
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
    # RMSNorm without weights over the head width of values (Gemma 4).
    value_norm: bool = False
    # Each layer's output, residual stream included, is multiplied by a stored number that is not trained (Gemma 4).
    layer_scale: bool = False
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
        check_numbers(self)
        self.rope.check()
        self.linear.check()
        check_layers(self)
        if self.experts < 0:
            raise InputError(f"model.experts: {self.experts} is less than 0; 0 stands for none")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            raise InputError(
                f"model.experts_per_token: {self.experts_per_token} of {self.experts} experts; choose from 1 to all"
            )
        if self.head_dim is None and self.width % self.heads:
            raise InputError(f"model.width: {self.width} does not divide into {self.heads} heads; set model.head_dim")
        for name, width in (("head_dim", self.head_width), ("full_head_dim", self.full_head_width)):
            if width % 2:
                raise InputError(f"model.{name}: {width} is odd; rotary embedding turns pairs")
        turning = self.rope.rotary_width(self.full_head_width)
        if turning % 2 or not turning:
            raise InputError(
                f"model.rope.partial: {self.rope.partial} of {self.full_head_width} is {turning}, no pairs"
            )
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
    def full_head_width(self) -> int:
        """G of layers that do not slide."""
        return self.full_head_dim or self.head_width

    def kind(self, layer: int) -> LayerKind:
        """The shapes of a layer."""
        if self.linear.has(layer):
            return LayerKind(
                None, 0, 0, self.feed_forward, own_values=False, reuses_kv=False, kv_reused=False, linear=True
            )
        apart = self.full_head_dim or self.full_kv_heads or self.keys_as_values or self.sharing_layers
        full, reuses_kv = not self.slides(layer), layer >= self.layers - self.sharing_layers
        return LayerKind(
            slides=not full if apart else None,
            head_width=self.full_head_width if full else self.head_width,
            kv_heads=(full and self.full_kv_heads) or self.kv_heads,
            feed_forward=(reuses_kv and self.sharing_feed_forward) or self.feed_forward,
            own_values=not (full and self.keys_as_values),
            reuses_kv=reuses_kv,
            kv_reused=self.sharing_layers > 0
            and layer in reused_layers(tuple(map(self.slides, range(self.layers))), self.sharing_layers),
        )

    def scanned_kinds(self) -> tuple[LayerKind, ...]:
        """The kinds of all layers but the last."""
        return tuple(self.kind(layer) for layer in range(self.layers - 1))

    def score_scale(self, kind: LayerKind) -> float:
        """The factor on attention scores."""
        return self.attention_multiplier or (self.query_scale or kind.head_width) ** -0.5

    def projection_shapes(self, kind: LayerKind) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each projection that such a layer has; of those of experts, of one."""
        D, F = self.width, kind.feed_forward
        H, K = self.heads * kind.head_width, kind.kv_heads * kind.head_width
        shapes = dict(zip(PROJECTIONS, ((D, H * (1 + self.output_gate)), (D, K), (D, K), (H, D))))
        lacking = {"k_proj", "v_proj"} if kind.reuses_kv else set() if kind.own_values else {"v_proj"}
        found = {name: shape for name, shape in shapes.items() if name not in lacking}
        if kind.linear:
            found = self.linear.projection_shapes(D)
        found |= zip(EXPERT_PROJECTIONS, ((D, F), (D, F), (F, D)))
        if self.experts and (E := self.expert_width):
            found |= zip(self.expert_projections(), ((D, E), (D, E), (E, D)))
        return found

    def expert_projections(self) -> tuple[str, ...]:
        """The projections that every expert has for itself; those beside a feed-forward part with `experts.` ahead."""
        if not self.experts:
            return ()
        return tuple(f"experts.{name}" for name in EXPERT_PROJECTIONS) if self.expert_width else EXPERT_PROJECTIONS

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
