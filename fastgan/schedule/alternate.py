"""The policy `alternate`: in every step first the discriminator's updates, then the generator's."""

from dataclasses import dataclass
from typing import ClassVar

from fastgan.schedule.plan import Update
from fastgan.schedule.policy import Policy, check_at_least_one, counted
from fastgan.schedule.state import ScheduleState


@dataclass(frozen=True, kw_only=True)
class Alternate(Policy):
    """`discriminator_updates` updates of the discriminator, then `generator_updates` of the generator.

    Args:
        share_fakes: one batch of fakes serves the step's last discriminator update and its first generator update.
    """

    name: ClassVar[str] = "alternate"

    discriminator_updates: int = 1
    generator_updates: int = 1
    share_fakes: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "an update of either network is part of every step"
        check_at_least_one("schedule.discriminator_updates", self.discriminator_updates, remedy)
        check_at_least_one("schedule.generator_updates", self.generator_updates, remedy)

    def _summary(self) -> str:
        discriminator = counted(self.discriminator_updates, "discriminator update")
        generator = counted(self.generator_updates, "generator update")
        return f"{discriminator}, then {generator} per step" + (", fakes shared" if self.share_fakes else "")

    def _updates(self, state: ScheduleState) -> tuple[Update, ...]:
        return self._alternating(
            state,
            num_discriminator=self.discriminator_updates,
            num_generator=self.generator_updates,
            share_fakes=self.share_fakes,
        )
