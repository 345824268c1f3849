"""The policy `split`: some ranks update the discriminator while the others update the generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from fastgan.errors import ConfigError
from fastgan.schedule.plan import Exchange, Network, Ticket, Update
from fastgan.schedule.policy import Policy, check_at_least_one, counted
from fastgan.schedule.state import ScheduleState


class Route(NamedTuple):
    """The weights of `network` go from rank `source` to the ranks `targets`, which only read them."""

    network: Network
    source: int
    targets: range

    @property
    def group(self) -> range:
        """The ranks that take part."""
        return range(min(self.source, self.targets.start), max(self.source + 1, self.targets.stop))


@dataclass(frozen=True, kw_only=True)
class Split(Policy):
    """Ranks 0 to `discriminator_ranks` - 1 have the role discriminator, the rest the role generator.

    At the beginning of every `publish_every`-th step each role sends its weights as they are to the other one, which
    goes on meanwhile and reads them from `delay_steps` steps later on. With a delay of 0 both wait for each other, and
    the two networks descend simultaneously.

    The staleness of a read is the number of steps by which it lags behind the version at the beginning of its step. It
    is `delay_steps` to `delay_steps + publish_every - 1`, which `max_staleness` must allow.

    In `lockstep` every update reads the version that its plan names. Without it a role takes the newest version that
    has arrived, and waits only where its staleness would exceed the bound: what a plan says about reads and arrivals is
    then what would happen in lockstep, and all else of it holds.

    Args:
        max_staleness: in steps; None for what the two other numbers imply.
    Raises:
        ConfigError: if a role has no rank, or the bound on the staleness cannot be kept.
    """

    name: ClassVar[str] = "split"

    discriminator_ranks: int
    discriminator_updates: int = 1
    generator_updates: int = 1
    publish_every: int = 1
    delay_steps: int = 1
    max_staleness: int | None = None
    lockstep: bool = True

    def __post_init__(self) -> None:
        remedy = "a role without updates has nothing to publish"
        check_at_least_one("schedule.discriminator_updates", self.discriminator_updates, remedy)
        check_at_least_one("schedule.generator_updates", self.generator_updates, remedy)
        check_at_least_one("schedule.publish_every", self.publish_every, "1 is every step")
        if self.num_ranks < 2:
            rule = "schedule.policy=split needs at least one rank for each of its 2 roles"
            remedy = "start 2 processes or more with torchrun, or use schedule.policy=alternate"
            raise ConfigError(f"{rule}, and num_ranks={self.num_ranks}; {remedy}")
        if not 1 <= self.discriminator_ranks < self.num_ranks:
            rule = f"must leave at least one of num_ranks={self.num_ranks} ranks to each of the 2 roles"
            choices = f"give 1 to {self.num_ranks - 1}"
            raise ConfigError(f"schedule.discriminator_ranks={self.discriminator_ranks} {rule}; {choices}")
        self._check_settings()
        super().__post_init__()

    @property
    def groups(self) -> tuple[range, ...]:
        """The ranks of the discriminator, then those of the generator."""
        return range(self.discriminator_ranks), range(self.discriminator_ranks, self.num_ranks)

    @property
    def routes(self) -> tuple[Route, Route]:
        """Who sends to whom: the ranks at the border send, so that each exchange is among neighbours."""
        discriminator, generator = self.groups
        return Route("discriminator", discriminator[-1], generator), Route("generator", generator[0], discriminator)

    @property
    def bound(self) -> int:
        """The largest staleness of a read, in steps."""
        implied = self.delay_steps + self.publish_every - 1
        return implied if self.lockstep or self.max_staleness is None else self.max_staleness

    @property
    def vote_lag(self) -> int:
        """So long that neither role waits for the other one."""
        return self.bound + 1

    def num_due(self, step: int, in_use: int, underway: Sequence[int]) -> int:
        """How many of the publications `underway`, oldest first, a rank must have before the updates of step `step`.

        It has started the publications of `step`. A free-running rank may take further ones if they have arrived; that
        there are always enough underway follows from bound >= publish_every - 1, which the settings guarantee.

        Args:
            in_use: the step of the publication that it has read so far.
        """
        if self.lockstep:
            return sum(sent <= step - self.delay_steps for sent in underway)
        oldest = step - self.bound
        if in_use >= oldest:
            return 0
        num_due = 1 + sum(sent < oldest for sent in underway)
        assert num_due <= len(underway), f"step {step} waits for weights that are not sent"
        return num_due

    def kept(self, state: ScheduleState, steps: Sequence[int]) -> tuple[int, ...]:
        """Which publications of a checkpoint a run goes on with; none if one is missing that is still to be read.

        Args:
            state: of the checkpoint.
            steps: of the publications in it: that in use, then those underway.
        """
        every, lag = self.publish_every, self.delay_steps if self.lockstep else self.bound
        found = tuple(steps)
        if not found or found[1:] != tuple(range(found[0] // every * every + every, state.step, every)):
            return ()
        while len(found) > 1 and found[1] <= state.step - 1 - lag:
            found = found[1:]
        return found

    def _summary(self) -> str:
        discriminator = counted(self.discriminator_updates, "discriminator update")
        generator = counted(self.generator_updates, "generator update")
        roles = f"{discriminator} per step on {counted(self.discriminator_ranks, 'rank')}, {generator} on the others"
        order = "in lockstep" if self.lockstep else "free-running"
        return f"{roles}, {order}, weights at most {counted(self.bound, 'step')} old"

    def _updates(self, state: ScheduleState) -> tuple[Update, ...]:
        discriminator_ranks, generator_ranks = self.groups
        # Published versions are in use from `delay_steps` later on; before the first, everybody has version 0.
        published = max(0, (state.step - self.delay_steps) // self.publish_every * self.publish_every)
        discriminator = tuple(
            self._update(
                state,
                "discriminator",
                discriminator_ranks,
                index=index,
                reads=self._version("generator", state, published),
                real_batch=index,
                latent_batch=index,
            )
            for index in range(self.discriminator_updates)
        )
        generator = tuple(
            self._update(
                state,
                "generator",
                generator_ranks,
                index=index,
                reads=self._version("discriminator", state, published),
                real_batch=self.discriminator_updates - 1,
                latent_batch=self.discriminator_updates + index,
            )
            for index in range(self.generator_updates)
        )
        return discriminator + generator

    def _exchanges(self, state: ScheduleState) -> tuple[tuple[Exchange, ...], tuple[Exchange, ...]]:
        return self._published(state, state.step), self._published(state, state.step - self.delay_steps)

    def _published(self, state: ScheduleState, step: int) -> tuple[Exchange, ...]:
        """What is sent at the beginning of step `step`, which is that of `state` or an earlier one."""
        if step <= 0 or step % self.publish_every:
            return ()
        return tuple(
            Exchange(Ticket(step, index), route.network, self._version(route.network, state, step), *route[1:])
            for index, route in enumerate(self.routes, start=1)
        )

    def _version(self, network: Network, state: ScheduleState, step: int) -> int:
        """The version that `network` has at the beginning of step `step`, not after that of `state`.

        Before a checkpoint of another policy there were perhaps fewer updates: no version is below 0.
        """
        if network == "discriminator":
            return max(0, state.discriminator_updates - (state.step - step) * self.discriminator_updates)
        return max(0, state.generator_updates - (state.step - step) * self.generator_updates)

    def _check_settings(self) -> None:
        for name in ("discriminator_start_images", "generator_start_images"):
            if getattr(self, name):
                reason = "leaves the ranks of one role idle until then"
                raise ConfigError(
                    f"schedule.{name}={getattr(self, name)} {reason} with schedule.policy=split; set it to 0"
                )
        if self.delay_steps < 0:
            raise ConfigError(f"schedule.delay_steps={self.delay_steps} must be at least 0; 0 waits for every exchange")
        implied = self.delay_steps + self.publish_every - 1
        if self.max_staleness is not None and self.max_staleness < implied:
            raise ConfigError(
                f"schedule.max_staleness={self.max_staleness} must be at least delay_steps + publish_every - 1 = "
                f"{implied}; publish more often, or allow more"
            )
