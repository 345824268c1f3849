"""The vocabulary of a schedule: penalties, micro-batches, updates, and the plan of one rank for one step."""

import hashlib
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from fastgan.errors import ConfigError
from fastgan.schedule.state import ScheduleState

Network = Literal["discriminator", "generator"]


@dataclass(frozen=True)
class DuePenalty:
    """A penalty that belongs to an update, with the weight that it has there."""

    kind: str
    weight: float


@dataclass(frozen=True)
class LazyPenalty:
    """A penalty of nominal weight `weight`, computed at every `every`-th discriminator update with weight x every.

    It joins the loss of that update, so the number of optimizer steps stays the same. The correction of learning rate
    and betas by k / (k + 1) of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) is for penalties that have an optimizer
    step of their own; it does not apply here.

    Raises:
        ConfigError: if `every` is below 1, or `weight` is not a positive finite number.
    """

    kind: str
    weight: float
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(
                f"penalties: every={self.every} of {self.kind} must be at least 1; 1 is every discriminator update"
            )
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigError(
                f"penalties: weight={self.weight} of {self.kind} must be positive and finite; "
                "to go without it, remove it from the list"
            )

    def is_due(self, update: int) -> bool:
        """Whether discriminator update number `update`, counted from 0, includes the penalty."""
        return update % self.every == 0

    @property
    def due(self) -> DuePenalty:
        """The penalty as an update includes it: the mean over `every` updates has the nominal weight."""
        return DuePenalty(self.kind, self.weight * self.every)


@dataclass(frozen=True)
class MicroBatch:
    """The samples of one forward and backward pass, by their global numbers.

    Real samples are `first_sample` to `first_sample + num_samples - 1`, latents likewise from `first_latent`. `weight`
    multiplies the mean loss of the micro-batch; over all ranks and micro-batches of an update the weights sum to 1.
    """

    first_sample: int
    first_latent: int
    num_samples: int
    weight: Fraction


@dataclass(frozen=True)
class Update:
    """One optimizer step of one network.

    The version of a network is the number of updates that it has had: this one makes version `version` out of
    `version - 1`, and must see version `reads` of the other network. With `shared_fakes` its latents are those of
    an update of the other network in the same step, with the generator unchanged between them, so that one generator
    forward per micro-batch serves both.
    """

    network: Network
    version: int
    reads: int
    penalties: tuple[DuePenalty, ...]
    shared_fakes: bool
    micro_batches: tuple[MicroBatch, ...]


@dataclass(frozen=True)
class Plan:
    """What rank `rank` of `num_ranks` does, in this order, from `state` on; `num_images` is the step's on the clock."""

    state: ScheduleState
    rank: int
    num_ranks: int
    num_images: int
    updates: tuple[Update, ...]

    @property
    def step(self) -> int:
        """The number of the step, counted from 0."""
        return self.state.step

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over what all ranks must agree on: everything but the rank and its micro-batches."""
        updates = [replace(update, micro_batches=()) for update in self.updates]
        shared = repr((self.state, self.num_ranks, self.num_images, updates))
        return hashlib.blake2b(shared.encode(), digest_size=8).hexdigest()
