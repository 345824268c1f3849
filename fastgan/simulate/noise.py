"""What makes ranks unequal: chance, and ranks that are always slow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastgan.errors import ConfigError
from fastgan.simulate.cost import Seconds


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What makes ranks unequal.

    Args:
        jitter: standard deviation of the logarithm of every computation's time.
        straggler_share: part of the ranks, drawn by `seed`, that always take `straggler_slowdown` times as long.
    Raises:
        ConfigError: if a number is out of range.
    """

    jitter: float = 0.0
    straggler_share: float = 0.0
    straggler_slowdown: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"jitter={self.jitter} must be in [0, 1); 0.05 is 5% either way")
        if not 0 <= self.straggler_share <= 1:
            raise ConfigError(f"stragglers={self.straggler_share} must be in [0, 1]; 0.01 is one rank in a hundred")
        if not (self.straggler_slowdown >= 1 and math.isfinite(self.straggler_slowdown)):
            raise ConfigError(f"slowdown={self.straggler_slowdown} must be at least 1; 1.5 is half as long again")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed} must be at least 0; every other one draws other ranks and times")

    def factors(self, num_ranks: int) -> Seconds:
        """[R], by which each rank is always slower."""
        chosen = np.random.default_rng([self.seed, 0]).random(num_ranks) < self.straggler_share
        return np.where(chosen, self.straggler_slowdown, 1.0)

    def jitters(self, num_ranks: int, key: Sequence[int]) -> Seconds:
        """[R], of the computation that `key` names, mean 1."""
        if not self.jitter:
            return np.ones(num_ranks)
        normal = np.random.default_rng([self.seed, 1, *key]).standard_normal(num_ranks)
        return np.exp(self.jitter * normal - self.jitter**2 / 2)
