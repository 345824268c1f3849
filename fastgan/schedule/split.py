"""The policy `split`: some ranks update the discriminator while the others update the generator."""

from dataclasses import dataclass
from typing import ClassVar

from fastgan.errors import ConfigError
from fastgan.schedule.plan import Exchange, Network, Ticket, Update
from fastgan.schedule.policy import Policy, check_at_least_one, counted
from fastgan.schedule.state import ScheduleState


@dataclass(frozen=True, kw_only=True)
class Split(Policy):
    """Ranks 0 to `discriminator_ranks` - 1 have the role discriminator, the rest the role generator.

    At the beginning of every `publish_every`-th step each role sends its weights as they are to the other one, which
    goes on meanwhile and reads them from `delay_steps` steps later on. With a delay of 0 both wait for each other, and
    the two networks descend simultaneously.

    The staleness of a read is the number of steps by which it lags behind the version at the beginning of its step. It
    is `delay_steps` to `delay_steps + publish_every - 1`, which `max_staleness` must allow.

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

    def __post_init__(self) -> None:
        remedy = "a role without updates has nothing to publish"
        check_at_least_one("schedule.discriminator_updates", self.discriminator_updates, remedy)
        check_at_least_one("schedule.generator_updates", self.generator_updates, remedy)
        check_at_least_one("schedule.publish_every", self.publish_every, "1 is every step")
        if not 1 <= self.discriminator_ranks < self.num_ranks:
            rule = f"must leave at least one of num_ranks={self.num_ranks} ranks to each of the 2 roles"
            choices = f"give 1 to {self.num_ranks - 1}" if self.num_ranks > 1 else "start 2 ranks or use alternate"
            raise ConfigError(f"schedule.discriminator_ranks={self.discriminator_ranks} {rule}; {choices}")
        self._check_settings()
        super().__post_init__()

    @property
    def groups(self) -> tuple[range, ...]:
        """The ranks of the discriminator, then those of the generator."""
        return range(self.discriminator_ranks), range(self.discriminator_ranks, self.num_ranks)

    def _summary(self) -> str:
        discriminator = counted(self.discriminator_updates, "discriminator update")
        generator = counted(self.generator_updates, "generator update")
        roles = f"{discriminator} per step on {counted(self.discriminator_ranks, 'rank')}, {generator} on the others"
        bound = self.delay_steps + self.publish_every - 1
        return f"{roles}, weights at most {counted(bound, 'step')} old"

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
        border, num_ranks = self.discriminator_ranks, self.num_ranks
        # The ranks at the border send, so that each exchange is among neighbours.
        routes: list[tuple[Network, int, range]] = [
            ("discriminator", border - 1, range(border, num_ranks)),
            ("generator", border, range(border)),
        ]
        return tuple(
            Exchange(Ticket(step, index), network, self._version(network, state, step), source, targets)
            for index, (network, source, targets) in enumerate(routes)
        )

    def _version(self, network: Network, state: ScheduleState, step: int) -> int:
        """The version that `network` has at the beginning of step `step`, not after that of `state`."""
        if network == "discriminator":
            return state.discriminator_updates - (state.step - step) * self.discriminator_updates
        return state.generator_updates - (state.step - step) * self.generator_updates

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
