"""The vocabulary of a schedule: penalties, micro-batches, updates, collectives, and the plan of one step."""

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from fastgan.errors import ConfigError
from fastgan.schedule.state import ScheduleState

Network = Literal["discriminator", "generator"]
CollectiveKind = Literal["gradient", "vote", "publish"]
# In steps. A small message costs as much as a large one, and a signal may wait for a few steps.
VOTE_EVERY = 4


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


@dataclass(frozen=True, kw_only=True)
class Update:
    """One optimizer step of one network, by the ranks of `group` together.

    The version of a network is the number of updates that it has had: this one makes version `version` out of
    `version - 1`, and must see version `reads` of the other network. It shows the real samples from `first_sample` on
    and takes the latents from `first_latent` on; `micro_batches` are one rank's part of them, none while no rank is
    meant. With `shared_fakes` its latents are those of an update of the other network in the same step, with the
    generator unchanged between them, so that one generator forward per micro-batch serves both. A generator's update
    that is not `adversarial` leaves the discriminator out of its loss.
    """

    network: Network
    version: int
    reads: int
    group: range
    first_sample: int
    first_latent: int
    penalties: tuple[DuePenalty, ...] = ()
    shared_fakes: bool = False
    adversarial: bool = True
    micro_batches: tuple[MicroBatch, ...] = ()


class Ticket(NamedTuple):
    """The place of a collective in the one order in which every rank issues its collectives."""

    step: int
    place: int


@dataclass(frozen=True)
class Collective:
    """What the ranks of `group` do together.

    vote       whether all ranks follow the same plan and whether one of them has received a signal: a few integers,
               which are acted on by all some steps later
    gradient   the sum of the gradients of `networks` over the group, none of which makes the update if it is not finite
    publish    the weights of `networks` from one rank of the group to the others
    """

    ticket: Ticket
    kind: CollectiveKind
    networks: tuple[Network, ...]
    group: range


@dataclass(frozen=True)
class Exchange:
    """Version `version` of `network`, sent by `source` to the ranks `targets`, which only read it.

    `source` and `targets` are neighbours, so that together they are a range.
    """

    ticket: Ticket
    network: Network
    version: int
    source: int
    targets: range

    @property
    def group(self) -> range:
        """The ranks that take part."""
        return range(min(self.source, self.targets.start), max(self.source + 1, self.targets.stop))

    @property
    def collective(self) -> Collective:
        """The exchange as what its ranks do together."""
        return Collective(self.ticket, "publish", (self.network,), self.group)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What all ranks together do from `state` on; `num_images` is what the clock advances by.

    First the `vote` and the `exchanges` start, and the vote of `vote_lag` steps ago and the `arrivals`, exchanges
    started in this step or earlier ones, are awaited; then come the `updates`, those of one rank in this order. With
    `is_joint` one pass through both networks serves both updates.
    """

    state: ScheduleState
    num_ranks: int
    num_images: int
    updates: tuple[Update, ...]
    exchanges: tuple[Exchange, ...] = ()
    arrivals: tuple[Exchange, ...] = ()
    is_joint: bool = False
    vote_lag: int = 1

    @property
    def vote(self) -> Collective | None:
        """What starts in this step."""
        return self._vote(self.state.step)

    @property
    def vote_due(self) -> Collective | None:
        """What is awaited in this step."""
        return self._vote(self.state.step - self.vote_lag)

    def _vote(self, step: int) -> Collective | None:
        if self.num_ranks == 1 or step < 0 or step % VOTE_EVERY:
            return None
        return Collective(Ticket(step, 0), "vote", (), range(self.num_ranks))

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """In ticket order. A rank that is alone in its group has nothing to do together with others."""
        found = [] if self.vote is None else [self.vote]
        found += [exchange.collective for exchange in self.exchanges]
        for together in [self.updates] if self.is_joint else [(update,) for update in self.updates]:
            group = together[0].group
            networks = tuple(update.network for update in together)
            for name in networks if len(group) > 1 else ():
                place = found[-1].ticket.place + 1 if found else 1
                found.append(Collective(Ticket(self.state.step, place), "gradient", (name,), group))
        return tuple(found)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over all of it: what ranks must agree on before they begin."""
        return hashlib.blake2b(repr(self).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What rank `rank` does of a step, in this order: its `updates` with its micro-batches."""

    whole: Step
    rank: int
    updates: tuple[Update, ...]

    @property
    def state(self) -> ScheduleState:
        """Where the schedule stands before the step."""
        return self.whole.state

    @property
    def step(self) -> int:
        """The number of the step, counted from 0."""
        return self.whole.state.step

    @property
    def num_ranks(self) -> int:
        """Ranks of the run."""
        return self.whole.num_ranks

    @property
    def num_images(self) -> int:
        """Real images by which the clock advances."""
        return self.whole.num_images

    def count(self, network: Network) -> int:
        """How many of the rank's updates are of `network`."""
        return sum(update.network == network for update in self.updates)

    @property
    def collectives(self) -> tuple[Collective, ...]:
        """Those that the rank takes part in, in ticket order."""
        return tuple(collective for collective in self.whole.collectives if self.rank in collective.group)

    @property
    def digest(self) -> str:
        """The digest of the whole step, equal on all ranks."""
        return self.whole.digest
