"""The policy `alternate`: in every step first the discriminator's updates, then the generator's."""

from dataclasses import dataclass, replace
from fractions import Fraction

from fastgan.errors import ConfigError
from fastgan.schedule.plan import LazyPenalty, MicroBatch, Plan, Update
from fastgan.schedule.state import ScheduleState


@dataclass(frozen=True, kw_only=True)
class Alternate:
    """`discriminator_updates` updates of the discriminator, then `generator_updates` of the generator.

    Discriminator update number k shows the real samples [k B, (k + 1) B), B = `batch_images`. A generator update names
    those of the last discriminator update before it, for losses that compare with real images. Every update takes B
    new latents, but with `share_fakes` the step's first generator update takes those of its last discriminator update.

    An update's samples are split into equal contiguous ranges over ranks, then over micro-batches of
    `micro_batch_images`, None for a rank's whole range. The clock runs by B images per discriminator update.

    Raises:
        ConfigError: if a number is below 1, or `batch_images` is not a multiple of ranks x micro-batch.
    """

    batch_images: int
    micro_batch_images: int | None = None
    discriminator_updates: int = 1
    generator_updates: int = 1
    penalties: tuple[LazyPenalty, ...] = ()
    share_fakes: bool = True
    num_ranks: int = 1

    def __post_init__(self) -> None:
        _check_at_least_one("batch_images", self.batch_images, "give the images of one update")
        _check_at_least_one("num_ranks", self.num_ranks, "one process is 1")
        ratio_remedy = "an update of either network is part of every step"
        _check_at_least_one("schedule.discriminator_updates", self.discriminator_updates, ratio_remedy)
        _check_at_least_one("schedule.generator_updates", self.generator_updates, ratio_remedy)
        if self.micro_batch_images is None:
            _check_multiple(self.batch_images, self.num_ranks, f"num_ranks = {self.num_ranks}")
        else:
            _check_at_least_one("micro_batch_images", self.micro_batch_images, "null is the whole batch")
            divisor = self.num_ranks * self.micro_batch_images
            rule = f"num_ranks x micro_batch_images = {self.num_ranks} x {self.micro_batch_images} = {divisor}"
            _check_multiple(self.batch_images, divisor, rule)

    def plan(self, state: ScheduleState, rank: int = 0) -> Plan:
        """What rank `rank` does in the step that follows `state`.

        Raises:
            ValueError: if there is no such rank.
        """
        if not 0 <= rank < self.num_ranks:
            raise ValueError(f"rank={rank} must be one of the num_ranks={self.num_ranks}, counted from 0")
        discriminator = tuple(self._discriminator_update(state, rank, i) for i in range(self.discriminator_updates))
        generator = tuple(self._generator_update(state, rank, i) for i in range(self.generator_updates))
        return Plan(state, rank, self.num_ranks, self._num_images, discriminator + generator)

    def advance(self, state: ScheduleState) -> ScheduleState:
        """The state after the step that follows `state`."""
        num_latent_batches = self.discriminator_updates + self.generator_updates - self.share_fakes
        return replace(
            state,
            step=state.step + 1,
            images_seen=state.images_seen + self._num_images,
            discriminator_updates=state.discriminator_updates + self.discriminator_updates,
            generator_updates=state.generator_updates + self.generator_updates,
            next_latent=state.next_latent + num_latent_batches * self.batch_images,
        )

    @property
    def _num_images(self) -> int:
        return self.batch_images * self.discriminator_updates

    def _discriminator_update(self, state: ScheduleState, rank: int, index: int) -> Update:
        number = state.discriminator_updates + index
        return Update(
            network="discriminator",
            version=number + 1,
            reads=state.generator_updates,
            penalties=tuple(penalty.due for penalty in self.penalties if penalty.is_due(number)),
            shared_fakes=self.share_fakes and index == self.discriminator_updates - 1,
            micro_batches=self._micro_batches(state, rank, real_batch=index, latent_batch=index),
        )

    def _generator_update(self, state: ScheduleState, rank: int, index: int) -> Update:
        last_discriminator = self.discriminator_updates - 1
        latent_batch = self.discriminator_updates + index - self.share_fakes
        return Update(
            network="generator",
            version=state.generator_updates + index + 1,
            reads=state.discriminator_updates + self.discriminator_updates,
            penalties=(),
            shared_fakes=self.share_fakes and index == 0,
            micro_batches=self._micro_batches(state, rank, real_batch=last_discriminator, latent_batch=latent_batch),
        )

    def _micro_batches(
        self, state: ScheduleState, rank: int, *, real_batch: int, latent_batch: int
    ) -> tuple[MicroBatch, ...]:
        """The rank's share of the step's `real_batch`-th batch of real samples and `latent_batch`-th of latents."""
        share = self.batch_images // self.num_ranks
        size = self.micro_batch_images or share
        first_sample = state.images_seen + real_batch * self.batch_images
        first_latent = state.next_latent + latent_batch * self.batch_images
        weight = Fraction(size, self.batch_images)
        return tuple(
            MicroBatch(first_sample + offset, first_latent + offset, size, weight)
            for offset in range(rank * share, (rank + 1) * share, size)
        )


def _check_at_least_one(key: str, value: int, remedy: str) -> None:
    if value < 1:
        raise ConfigError(f"{key}={value} must be at least 1; {remedy}")


def _check_multiple(batch_images: int, divisor: int, rule: str) -> None:
    below = batch_images // divisor * divisor
    if below == batch_images:
        return
    choices = f"{below} or {below + divisor}" if below else f"{divisor}"
    raise ConfigError(f"batch_images={batch_images} must be a multiple of {rule}; nearest: {choices}")
