"""What a decoder is: shapes and switches of the one architecture, and how it is adapted."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fit_jax.errors import InputError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

ROPE_NUMBERS = ("theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_positions")

# Largest sizes that are believed, in a config here as in a `config.json`: a thousand times those of today's models.
LARGEST = {
    "layers": 1 << 12,
    "width": 1 << 20,
    "feed_forward": 1 << 23,
    "heads": 1 << 16,
    "kv_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 24,
    "window": 1 << 31,
}
LARGEST_RANK = 1 << 16

Family = Literal["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"]


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; angles are always computed in fp32."""

    # Base of the rotation's wavelengths.
    theta: float = 10000.0
    # Scaling of frequencies: `default`, `linear` or `llama3`.
    kind: Literal["default", "linear", "llama3"] = "default"
    # Factor by which positions are stretched (linear, llama3).
    factor: float = 1.0
    # Fewer turns than this over the original positions: the frequency is divided by `factor` (llama3).
    low_freq_factor: float = 1.0
    # More turns than this over the original positions: the frequency stays (llama3).
    high_freq_factor: float = 4.0
    # Positions that the model was trained on before scaling (llama3).
    original_max_positions: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder. Defaults are the demo's tiny model, trained from scratch."""

    # Hugging Face folder, hub id or folder of an imported model; null means random weights of the shape below.
    pretrained: str | None = None
    # Hugging Face model type whose names and config an export uses.
    family: Family = "llama"
    # Layer count L.
    layers: int = 2
    # Model width D.
    width: int = 96
    # Feed-forward width F.
    feed_forward: int = 256
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
    # RoPE theta of sliding layers, unscaled (Gemma 3); null means they rotate as all others.
    sliding_theta: float | None = None
    # Tokens a query of a sliding layer sees, itself included; null means no layer slides.
    window: int | None = None
    # Indices of the sliding layers; null means every layer where `window` is set.
    sliding_layers: tuple[int, ...] | None = None
    # Biases on the query, key and value projections (Qwen 2).
    qkv_bias: bool = False
    # RMSNorm over the head width of queries and keys, before RoPE (Qwen 3, Gemma 3).
    qk_norm: bool = False
    # Gate of the feed-forward layer: SwiGLU (`silu`) or GeGLU with the tanh approximation (`gelu_tanh`).
    activation: Literal["silu", "gelu_tanh"] = "silu"
    # Norms on the outputs of attention and feed-forward as well as on their inputs (Gemma).
    post_norms: bool = False
    # Norms scale by 1 + weight (Gemma).
    norm_offset: bool = False
    # Embeddings are multiplied by sqrt(width) (Gemma).
    embed_scale: bool = False
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
    # Attention kernel: `auto`, `xla`, `splash` (TPU) or `cudnn` (GPU).
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"

    def check(self) -> None:
        """Raises InputError for sizes that no decoder can have."""
        for name in ("layers", "width", "feed_forward", "heads", "kv_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name}: {getattr(self, name)} is less than 1")
        for name in ("head_dim", "vocab_size", "window"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"model.{name}: {getattr(self, name)} is less than 1; null stands for none given")
        for name, most in LARGEST.items():
            if (getattr(self, name) or 0) > most:
                raise InputError(f"model.{name}: {getattr(self, name)} is more than {most}, the most that is allowed")
        positive = ("norm_epsilon", "sliding_theta", "query_scale", "attention_softcap", "logit_softcap")
        numbers = {f"model.{name}": getattr(self, name) for name in positive}
        numbers |= {f"model.rope.{name}": getattr(self.rope, name) for name in ROPE_NUMBERS}
        for name, value in numbers.items():
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}: {value} is not a number above 0")
        for layer in self.sliding_layers or ():
            if not 0 <= layer < self.layers:
                raise InputError(f"model.sliding_layers: there is no layer {layer}; they are 0 to {self.layers - 1}")
        if self.heads % self.kv_heads:
            raise InputError(f"model.heads: {self.heads} heads do not divide into {self.kv_heads} key/value heads")
        if self.head_dim is None and self.width % self.heads:
            raise InputError(f"model.width: {self.width} does not divide into {self.heads} heads; set model.head_dim")
        if self.head_width % 2:
            raise InputError(f"model.head_dim: {self.head_width} is odd; rotary embedding turns pairs")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.dropout: {self.dropout} is not in [0, 1)")

    @property
    def head_width(self) -> int:
        """G, given or derived."""
        return self.head_dim or self.width // self.heads

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


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters with PEFT's semantics; rank 0 means full fine-tuning."""

    # Rank of the adapters; 0 means full fine-tuning.
    rank: int = 0
    # Scale of the adapters: they are multiplied by alpha / rank.
    alpha: float = 32.0
    # Dropout on the adapters' inputs.
    dropout: float = 0.05
    # Adapted projections.
    targets: tuple[str, ...] = PROJECTIONS
    # Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA).
    rslora: bool = False
    # Train each output's magnitude apart from its direction (DoRA).
    dora: bool = False
    # PEFT adapter (folder or hub id) to go on from; rank, alpha, targets and kind are then its own.
    adapter: str | None = None

    def check(self) -> None:
        """Raises InputError for an adapter that cannot be made."""
        unknown = [target for target in self.targets if target not in PROJECTIONS]
        if unknown:
            raise InputError(f"lora.targets: no projection {', '.join(unknown)}; there are {', '.join(PROJECTIONS)}")
        if self.rank < 0 or not 0 <= self.dropout < 1:
            raise InputError(f"lora: rank {self.rank}, dropout {self.dropout}; rank is 0 or more, dropout in [0, 1)")
        if self.rank > LARGEST_RANK:
            raise InputError(f"lora.rank: {self.rank} is more than {LARGEST_RANK}, the most that is allowed")
        if not math.isfinite(self.alpha):
            raise InputError(f"lora.alpha: {self.alpha} is not finite")
        if self.rank and not self.targets:
            raise InputError("lora.targets: names no projection; set lora.rank to 0 for full fine-tuning")

    @property
    def scaling(self) -> float:
        """The factor on B(A(x))."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)
