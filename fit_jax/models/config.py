"""What a decoder is: shapes and switches of the one architecture, and how it is adapted."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; angles are always computed in fp32."""

    theta: float = 10000.0
    # Scaling of frequencies: `default`, `linear` or `llama3`.
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder. Defaults are the demo's tiny model, trained from scratch."""

    # Hugging Face folder, hub id or folder of an imported model; null means random weights of the shape below.
    pretrained: str | None = None
    # Layer count L.
    layers: int = 4
    # Model width D.
    width: int = 128
    # Feed-forward width F.
    feed_forward: int = 352
    # Query heads H.
    heads: int = 4
    # Key/value heads K.
    kv_heads: int = 2
    # Head width G; null means width / heads.
    head_dim: int | None = None
    # Vocabulary size V; null means the tokenizer's.
    vocab_size: int | None = None
    # Input and output embeddings are one matrix.
    tied: bool = True
    norm_epsilon: float = 1e-5
    rope: RopeConfig = field(default_factory=RopeConfig)
    # Dropout on the embeddings and on each sublayer's output in training from scratch.
    dropout: float = 0.0
    # Parameter dtype: float32 or bfloat16.
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    # Dtype of matrix products and activations: float32 or bfloat16.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    # What the backward pass recomputes: `none` (nothing), `dots` (all but matrix products) or `full` (every layer).
    remat: Literal["none", "dots", "full"] = "none"
    # Attention kernel: `auto`, `xla`, `splash` (TPU) or `cudnn` (GPU).
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters with PEFT's semantics; rank 0 means full fine-tuning."""

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.05
    # Adapted projections.
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
