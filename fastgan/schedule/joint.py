"""The policy `joint`: both networks are updated at once, from one batch of fakes and one pass through both."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fastgan.errors import ConfigError
from fastgan.schedule.plan import Update
from fastgan.schedule.policy import Policy
from fastgan.schedule.state import ScheduleState


@dataclass(frozen=True, kw_only=True)
class Joint(Policy):
    """Simultaneous gradient descent: each network's gradient is taken at the versions that the step began with.

    It saves the second pass of the fakes through the discriminator, and is less stable than `alternate`: without a
    penalty it circles around the equilibrium (Mescheder et al. 2018, arXiv:1801.04406).
    """

    name: ClassVar[str] = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversarial_start_images:
            raise ConfigError(
                f"schedule.adversarial_start_images={self.adversarial_start_images} does not go with "
                "schedule.policy=joint, whose generator update comes out of the discriminator's pass; use alternate"
            )

    def _summary(self) -> str:
        return "both networks at once in every step"

    def _updates(self, state: ScheduleState) -> tuple[Update, ...]:
        updates = self._alternating(state, num_discriminator=1, num_generator=1, share_fakes=True)
        return tuple(replace(u, reads=self._before(state, u)) for u in updates)

    def _before(self, state: ScheduleState, update: Update) -> int:
        """The version of the other network before the step."""
        is_discriminator = update.network == "discriminator"
        return state.generator_updates if is_discriminator else state.discriminator_updates

    def _is_joint(self, updates: tuple[Update, ...]) -> bool:
        return len(updates) == 2
