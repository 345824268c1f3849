"""Exactly what survives a crash."""

from dataclasses import dataclass, field
from typing import NamedTuple

from fastgan.nn import SpectrallyNormalized
from fastgan.parallel import Engine
from fastgan.schedule import LazyPenalty, ScheduleState
from fastgan.train.roles import Roles


class Member(NamedTuple):
    """A discriminator beside the first, with penalties of its own."""

    network: SpectrallyNormalized
    engine: Engine
    penalties: tuple[LazyPenalty, ...]


@dataclass
class TrainState:
    """Networks, the generator's average, the engines with their optimizers, and where the schedule stands.

    `members`: discriminators beside the first, by name. Random numbers are not part of the state: they follow from the
    seed and the sample numbers in `schedule`.
    `roles`: of `split`, with the weights that the ranks of one role have from the other. The other role's network has
    no optimizer there, and on the discriminator's ranks the generator's average is without numbers, on the device meta.
    """

    generator: SpectrallyNormalized
    discriminator: SpectrallyNormalized
    generator_ema: SpectrallyNormalized
    generator_engine: Engine
    discriminator_engine: Engine
    schedule: ScheduleState
    members: dict[str, Member] = field(default_factory=dict)
    roles: Roles | None = None

    @property
    def images_seen(self) -> int:
        """Real images shown to the discriminator so far: the clock of the run."""
        return self.schedule.images_seen

    @property
    def discriminators(self) -> dict[str, tuple[SpectrallyNormalized, Engine]]:
        """All discriminators with their engines, by the name of their files in a checkpoint."""
        first = {"discriminator": (self.discriminator, self.discriminator_engine)}
        return first | {
            f"discriminator-{name}": (member.network, member.engine) for name, member in self.members.items()
        }

    @property
    def trained(self) -> dict[str, tuple[SpectrallyNormalized, Engine]]:
        """All networks with an engine, by the name of their files in a checkpoint."""
        return {"generator": (self.generator, self.generator_engine)} | self.discriminators
