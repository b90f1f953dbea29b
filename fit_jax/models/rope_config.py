"""How rotary position embedding turns queries and keys."""

import math
from dataclasses import dataclass
from typing import Literal

from fit_jax.errors import InputError

ROPE_NUMBERS = (
    "theta",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_positions",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "partial",
)


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding; angles are always computed in fp32."""

    # Base of the rotation's wavelengths.
    theta: float = 10000.0
    # Scaling of frequencies: `default`, `linear`, `llama3`, `yarn`, `longrope` or `proportional`.
    kind: Literal["default", "linear", "llama3", "yarn", "longrope", "proportional"] = "default"
    # Factor by which positions are stretched (linear, llama3, yarn, proportional).
    factor: float = 1.0
    # Fewer turns than this over the original positions: the frequency is divided by `factor` (llama3).
    low_freq_factor: float = 1.0
    # More turns than this over the original positions: the frequency stays (llama3).
    high_freq_factor: float = 4.0
    # Positions that the model was trained on before scaling (llama3, yarn, longrope, temperature).
    original_max_positions: int = 8192
    # Turns over the original positions from which on a frequency stays (yarn).
    beta_fast: float = 32.0
    # Turns over the original positions up to which a frequency is divided by `factor` (yarn).
    beta_slow: float = 1.0
    # The pairs between which frequencies are blended are whole ones (yarn).
    truncate: bool = True
    # Factor on cosines and sines (yarn, longrope).
    attention_factor: float = 1.0
    # What divides the frequency of each pair in sequences up to the original positions (longrope).
    short_factors: tuple[float, ...] | None = None
    # The same in longer sequences (longrope).
    long_factors: tuple[float, ...] | None = None
    # Share of each head that turns: its first dimensions (Phi-4); of all pairs the first (proportional).
    partial: float = 1.0
    # Queries are multiplied by 1 + this times log(1 + position // original_max_positions) (Ministral 3).
    temperature_beta: float = 0.0

    def rotary_width(self, head_width: int) -> int:
        """R, the dimensions of a head that turn; all of them, some by nothing, where only the first pairs do."""
        return head_width if self.kind == "proportional" else int(head_width * self.partial)

    def check(self) -> None:
        """Raises InputError for values that no rotary embedding has."""
        for name in ROPE_NUMBERS:
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"model.rope.{name}: {getattr(self, name)} is not a number above 0")
        if self.kind == "yarn" and self.theta <= 1:
            raise InputError(f"model.rope.theta: {self.theta} is not above 1, which yarn asks for")
        if self.partial > 1:
            raise InputError(f"model.rope.partial: {self.partial} is more than 1, which is all of a head")
        if not 0 <= self.temperature_beta < math.inf:
            raise InputError(f"model.rope.temperature_beta: {self.temperature_beta} is not a number from 0 on")
        for name in ("short_factors", "long_factors"):
            factors = getattr(self, name)
            if self.kind == "longrope" and factors is None:
                raise InputError(f"model.rope.{name}: longrope needs them, one for each pair of a head that turns")
            if not all(0 < factor < math.inf for factor in factors or ()):
                raise InputError(f"model.rope.{name}: one of them is not a number above 0")
