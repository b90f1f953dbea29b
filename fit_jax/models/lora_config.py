"""How a decoder is adapted."""

import math
from dataclasses import dataclass

from fit_jax.errors import InputError
from fit_jax.foreign import shown
from fit_jax.models.config import EXPERT_PROJECTIONS, PROJECTIONS
from fit_jax.models.linear_config import LINEAR_PROJECTIONS, LINEAR_PROJECTIONS_BY_HEAD

# Largest rank that is believed, in a config here as in PEFT's.
LARGEST_RANK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters with PEFT's semantics; rank 0 means full fine-tuning."""

    # Rank of the adapters; 0 means full fine-tuning.
    rank: int = 0
    # Scale of the adapters: they are multiplied by alpha / rank.
    alpha: float = 32.0
    # Dropout on the adapters' inputs.
    dropout: float = 0.05
    # Adapted projections: those of attention and of feed-forward parts. Of layers that keep a state in_proj_qkv,
    # in_proj_z, in_proj_b, in_proj_a and out_proj may be named as well; of Qwen3-Next's in_proj_qkvz, in_proj_ba and
    # out_proj.
    targets: tuple[str, ...] = PROJECTIONS
    # Each expert of a mixture gets adapters too, on those of `targets` that it has, without dropout.
    experts: bool = False
    # Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA).
    rslora: bool = False
    # Train each output's magnitude apart from its direction (DoRA).
    dora: bool = False
    # PEFT adapter (folder or hub id) to go on from; rank, alpha, targets and kind are then its own.
    adapter: str | None = None

    def check(self) -> None:
        """Raises InputError for an adapter that cannot be made."""
        known = tuple(dict.fromkeys((*PROJECTIONS, *LINEAR_PROJECTIONS, *LINEAR_PROJECTIONS_BY_HEAD)))
        known += tuple(f"experts.{name}" for name in EXPERT_PROJECTIONS) if self.experts else ()
        if unknown := [target for target in self.targets if target not in known]:
            raise InputError(
                f"lora.targets: no projection {', '.join(map(shown, unknown))}; there are {', '.join(known)}"
            )
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
