"""The policy `balance`: as many discriminator updates per step as the discriminator needs to keep its lead."""

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from fastgan.errors import ConfigError
from fastgan.schedule.plan import Update
from fastgan.schedule.policy import NOTHING_AGREED, Policy, check_at_least_one
from fastgan.schedule.state import Agreed, ScheduleState


class Decided(NamedTuple):
    """Discriminator updates of the next two steps; steps in a row with a statistic above, or below, the band."""

    now: int
    later: int
    num_above: int = 0
    num_below: int = 0


@dataclass(frozen=True, kw_only=True)
class Balance(Policy):
    """Between `min_updates` and `max_updates` of the discriminator, then one of the generator.

    The sign statistic is the mean sign of the margin between real and fake images: 1 when the discriminator always
    tells them apart, 0 when it cannot. After `patience` steps in a row above `high_percent` there is one update fewer,
    after as many below `low_percent` one more. A decision takes effect two steps after the statistic that completes it.

    Raises:
        ConfigError: if the bounds or the band are the wrong way round, or a number is below 1.
    """

    name: ClassVar[str] = "balance"

    min_updates: int = 1
    max_updates: int = 4
    low_percent: int = 20
    high_percent: int = 60
    patience: int = 8
    share_fakes: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one("schedule.min_updates", self.min_updates, "without an update there is no statistic")
        check_at_least_one("schedule.patience", self.patience, "1 follows every step's statistic")
        for low, high in (("min_updates", "max_updates"), ("low_percent", "high_percent")):
            if getattr(self, low) >= getattr(self, high):
                rule = f"must be below schedule.{high}={getattr(self, high)}"
                raise ConfigError(f"schedule.{low}={getattr(self, low)} {rule}; exchange them, or use alternate")
        if not (self.low_percent >= -100 and self.high_percent <= 100):
            band = f"schedule.low_percent={self.low_percent} and schedule.high_percent={self.high_percent}"
            raise ConfigError(f"{band} must lie in -100 to 100, the range of the sign statistic; give 20 and 60")

    def _summary(self) -> str:
        band = f"a sign statistic of {self.low_percent}% to {self.high_percent}%"
        updates = f"{self.min_updates} to {self.max_updates} discriminator updates, then 1 generator update per step"
        return f"{updates}, for {band}" + (", fakes shared" if self.share_fakes else "")

    def _updates(self, state: ScheduleState) -> tuple[Update, ...]:
        num_discriminator = self._decided(state).now
        return self._alternating(
            state, num_discriminator=num_discriminator, num_generator=1, share_fakes=self.share_fakes
        )

    def listens(self, state: ScheduleState) -> bool:
        """Every step's statistic counts."""
        del state
        return True

    def advance(self, state: ScheduleState, agreed: Agreed = NOTHING_AGREED) -> ScheduleState:
        """As of every policy, with what follows from the sign statistic."""
        old = self._decided(state)
        scaled, num_judged = 100 * agreed.sign_sum, agreed.num_judged
        num_above = old.num_above + 1 if scaled > self.high_percent * num_judged else 0
        num_below = old.num_below + 1 if scaled < self.low_percent * num_judged else 0
        new = Decided(old.later, old.later, num_above, num_below)
        if num_above >= self.patience:
            new = Decided(old.later, max(self.min_updates, old.later - 1))
        elif num_below >= self.patience:
            new = Decided(old.later, min(self.max_updates, old.later + 1))
        return replace(super().advance(state, agreed), balance=tuple(new))

    def _decided(self, state: ScheduleState) -> Decided:
        """What has been decided, within the bounds, which may be others than before a resume."""
        if not state.balance:
            return Decided(self.min_updates, self.min_updates)
        found = Decided(*state.balance)
        now, later = (min(max(n, self.min_updates), self.max_updates) for n in (found.now, found.later))
        return found._replace(now=now, later=later)
