"""What all policies share: their batch and how it is split over ranks, and the counts after a step."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from fastgan.errors import ConfigError
from fastgan.schedule.plan import Exchange, LazyPenalty, MicroBatch, Network, Plan, Step, Update
from fastgan.schedule.shares import Shares, check_shares, rank_range, rebalanced
from fastgan.schedule.state import Agreed, ScheduleState

NOTHING_AGREED = Agreed()
# Step times are compared once in so many steps, their means over those.
MEASURED_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Policy(ABC):
    """Says who updates what on which samples. A policy is its `_updates`; all else follows from them.

    Every update shows B = `batch_images` images. Discriminator update number k shows the real samples from k B on; the
    clock runs by B per discriminator update, and by B in a step without one. An update's samples are contiguous ranges
    of its group's ranks, then of micro-batches of `micro_batch_images`, None for a rank's whole range.

    Args:
        shares: how many micro-batches each rank takes: equally many, as measured step times ask for, or these.
        discriminator_start_images: until then the generator alone is updated.
        generator_start_images: until then the discriminator alone is updated.
        adversarial_start_images: until then generator updates leave the discriminator out of their loss; for objectives
            that have one of their own, which configurations do not offer.
    Raises:
        ConfigError: if a number is below 1, or the batch does not divide over ranks and micro-batches.
    """

    name: ClassVar[str]

    batch_images: int
    micro_batch_images: int | None = None
    penalties: tuple[LazyPenalty, ...] = ()
    num_ranks: int = 1
    shares: Shares = "equal"
    discriminator_start_images: int = 0
    generator_start_images: int = 0
    adversarial_start_images: int = 0

    def __post_init__(self) -> None:
        check_at_least_one("batch_images", self.batch_images, "give the images of one update")
        check_at_least_one("num_ranks", self.num_ranks, "one process is 1")
        if self.micro_batch_images is not None:
            check_at_least_one("micro_batch_images", self.micro_batch_images, "null is the whole batch")
        self._check_starts()
        if not isinstance(self.shares, str) and len(self.shares) != self.num_ranks:
            rule = f"must have one number for each of num_ranks={self.num_ranks}"
            raise ConfigError(f"schedule.shares={list(self.shares)} {rule}; add or remove some")
        for group in self.groups:
            check_shares(
                self.shares,
                group,
                batch_images=self.batch_images,
                micro_batch_images=self.micro_batch_images,
                may_differ=len(self.groups) > 1,
            )

    def __str__(self) -> str:
        """The policy in one line."""
        parts = [f"{self.name}: {self._summary()}", f"{self.batch_images} images per update"]
        parts.append(f"{self.num_ranks} ranks" if self.num_ranks > 1 else "1 rank")
        if self.micro_batch_images is not None:
            parts.append(f"micro-batches of {self.micro_batch_images}")
        if self.shares != "equal":
            parts.append(f"shares {self.shares if isinstance(self.shares, str) else list(self.shares)}")
        parts += [f"{penalty.kind} in one of {penalty.every} discriminator updates" for penalty in self.penalties]
        for name in ("discriminator", "generator", "adversarial"):
            if images := getattr(self, f"{name}_start_images"):
                parts.append(f"{name} from {images} images on")
        return "; ".join(parts)

    @property
    def groups(self) -> tuple[range, ...]:
        """The groups of ranks that make updates together: all ranks, or one group for each role."""
        return (range(self.num_ranks),)

    @property
    def vote_lag(self) -> int:
        """Steps after which all ranks act on what they have voted."""
        return 1

    @abstractmethod
    def _summary(self) -> str:
        """What the policy does, in one line."""

    @abstractmethod
    def _updates(self, state: ScheduleState) -> tuple[Update, ...]:
        """The updates of the step that follows `state`."""

    def step(self, state: ScheduleState) -> Step:
        """What all ranks together do in the step that follows `state`."""
        updates = self._updates(state)
        num_discriminator = sum(update.network == "discriminator" for update in updates)
        exchanges, arrivals = self._exchanges(state)
        return Step(
            state=state,
            num_ranks=self.num_ranks,
            num_images=self.batch_images * max(1, num_discriminator),
            updates=updates,
            exchanges=exchanges,
            arrivals=arrivals,
            is_joint=self._is_joint(updates),
            vote_lag=self.vote_lag,
        )

    def plan(self, state: ScheduleState, rank: int = 0) -> Plan:
        """What rank `rank` does in the step that follows `state`.

        Raises:
            ValueError: if there is no such rank.
        """
        if not 0 <= rank < self.num_ranks:
            raise ValueError(f"rank={rank} must be one of the num_ranks={self.num_ranks}, counted from 0")
        whole = self.step(state)
        mine = [update for update in whole.updates if rank in update.group]
        parts = (replace(update, micro_batches=self._micro_batches(update, state, rank)) for update in mine)
        return Plan(whole, rank, tuple(parts))

    def listens(self, state: ScheduleState) -> bool:
        """Whether what the ranks agree on in the step that follows `state` may change later plans."""
        return self.shares == "measured" and (state.step + 1) % MEASURED_STEPS == 0

    def images_of_ranks(self, state: ScheduleState, group: range) -> tuple[int, ...]:
        """How many images of a batch each rank of `group` takes in the step that follows `state`."""
        counts = self._shares(state)
        if counts:
            return tuple(count * (self.micro_batch_images or 1) for count in counts[group.start : group.stop])
        return tuple(len(self._range(group, rank, ())) for rank in group)

    def advance(self, state: ScheduleState, agreed: Agreed = NOTHING_AGREED) -> ScheduleState:
        """The state after the step that follows `state`, in which the ranks agreed on `agreed`.

        The plan of the next step does not depend on `agreed`, only those after it.
        """
        step = self.step(state)
        made = [update.network for update in step.updates]
        return replace(
            state,
            step=state.step + 1,
            images_seen=state.images_seen + step.num_images,
            discriminator_updates=state.discriminator_updates + made.count("discriminator"),
            generator_updates=state.generator_updates + made.count("generator"),
            next_latent=max(update.first_latent for update in step.updates) + self.batch_images,
            shares=self._later_shares(state),
            later_shares=self._rebalanced(state, agreed),
        )

    def _exchanges(self, state: ScheduleState) -> tuple[tuple[Exchange, ...], tuple[Exchange, ...]]:
        """What starts to be sent at the beginning of the step, and what must have arrived."""
        del state
        return (), ()

    def _is_joint(self, updates: tuple[Update, ...]) -> bool:
        """Whether one pass serves all of `updates`."""
        del updates
        return False

    def _alternating(
        self, state: ScheduleState, *, num_discriminator: int, num_generator: int, share_fakes: bool
    ) -> tuple[Update, ...]:
        """First the discriminator's updates, then the generator's, of those that have started.

        Every update takes new latents, but with `share_fakes` the first generator update takes those of the last
        discriminator update. Generator updates name the real samples of the last discriminator update before them.
        """
        num_discriminator *= state.images_seen >= self.discriminator_start_images
        num_generator *= state.images_seen >= self.generator_start_images
        is_shared = share_fakes and num_discriminator > 0 and num_generator > 0
        everybody = range(self.num_ranks)
        discriminator = tuple(
            self._update(
                state,
                "discriminator",
                everybody,
                index=index,
                reads=state.generator_updates,
                real_batch=index,
                latent_batch=index,
                shared_fakes=is_shared and index == num_discriminator - 1,
            )
            for index in range(num_discriminator)
        )
        generator = tuple(
            self._update(
                state,
                "generator",
                everybody,
                index=index,
                reads=state.discriminator_updates + num_discriminator,
                real_batch=max(0, num_discriminator - 1),
                latent_batch=num_discriminator + index - is_shared,
                shared_fakes=is_shared and index == 0,
            )
            for index in range(num_generator)
        )
        return discriminator + generator

    def _update(
        self,
        state: ScheduleState,
        network: Network,
        group: range,
        *,
        index: int,
        reads: int,
        real_batch: int,
        latent_batch: int,
        shared_fakes: bool = False,
    ) -> Update:
        """Update `index` of `network` in the step, on the step's batches `real_batch` and `latent_batch` of samples."""
        is_discriminator = network == "discriminator"
        number = index + (state.discriminator_updates if is_discriminator else state.generator_updates)
        due = tuple(penalty.due for penalty in self.penalties if penalty.is_due(number))
        return Update(
            network=network,
            version=number + 1,
            reads=reads,
            group=group,
            first_sample=state.images_seen + real_batch * self.batch_images,
            first_latent=state.next_latent + latent_batch * self.batch_images,
            penalties=due if is_discriminator else (),
            shared_fakes=shared_fakes,
            adversarial=is_discriminator or state.images_seen >= self.adversarial_start_images,
        )

    def _micro_batches(self, update: Update, state: ScheduleState, rank: int) -> tuple[MicroBatch, ...]:
        """The part of `rank` in the update's samples."""
        mine = self._range(update.group, rank, self._shares(state))
        size = self.micro_batch_images or len(mine)
        weight = Fraction(size, self.batch_images)
        return tuple(
            MicroBatch(update.first_sample + offset, update.first_latent + offset, size, weight)
            for offset in range(mine.start, mine.stop, size)
        )

    def _range(self, group: range, rank: int, counts: tuple[int, ...]) -> range:
        """Which of the batch's images `rank` takes."""
        batch, size = self.batch_images, self.micro_batch_images
        return rank_range(rank, group, batch_images=batch, micro_batch_images=size, counts=counts)

    def _shares(self, state: ScheduleState) -> tuple[int, ...]:
        """Micro-batches of every rank in the step that follows `state`; empty where they are equal."""
        if not isinstance(self.shares, str):
            return self.shares
        is_known = self.shares == "measured" and len(state.shares) == self.num_ranks
        return state.shares if is_known else ()

    def _later_shares(self, state: ScheduleState) -> tuple[int, ...]:
        is_known = self.shares == "measured" and len(state.later_shares) == self.num_ranks
        return state.later_shares if is_known else ()

    def _rebalanced(self, state: ScheduleState, agreed: Agreed) -> tuple[int, ...]:
        """Every rank's micro-batches in the step after the next."""
        later = self._later_shares(state)
        if self.shares != "measured" or len(agreed.rank_microseconds) != self.num_ranks:
            return later
        size = self.micro_batch_images
        assert size is not None
        equal = [len(self._range(group, rank, ())) // size for group in self.groups for rank in group]
        return rebalanced(later or equal, self._shares(state) or equal, agreed.rank_microseconds, groups=self.groups)

    def _check_starts(self) -> None:
        starts = {name: getattr(self, f"{name}_start_images") for name in ("discriminator", "generator", "adversarial")}
        for name, images in starts.items():
            if images < 0:
                raise ConfigError(f"schedule.{name}_start_images={images} must be at least 0; 0 is from the beginning")
        if starts["discriminator"] and starts["generator"]:
            raise ConfigError(
                f"schedule.generator_start_images={starts['generator']} leaves nothing to do before "
                f"schedule.discriminator_start_images={starts['discriminator']}; set one of them to 0"
            )


def counted(number: int, thing: str) -> str:
    """`2 updates`, `1 update`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def check_at_least_one(key: str, value: int, remedy: str) -> None:
    """Raises:
    ConfigError: if `value` is below 1.
    """
    if value < 1:
        raise ConfigError(f"{key}={value} must be at least 1; {remedy}")
