"""Exactly what survives a crash."""

from dataclasses import dataclass

from fastgan.nn import SpectrallyNormalized
from fastgan.parallel import Engine
from fastgan.schedule import ScheduleState


@dataclass
class TrainState:
    """Networks, the generator's average, the engines with their optimizers, and where the schedule stands.

    Random numbers are not part of it: they follow from the seed and the sample numbers in `schedule`.
    """

    generator: SpectrallyNormalized
    discriminator: SpectrallyNormalized
    generator_ema: SpectrallyNormalized
    generator_engine: Engine
    discriminator_engine: Engine
    schedule: ScheduleState

    @property
    def images_seen(self) -> int:
        """Real images shown to the discriminator so far: the clock of the run."""
        return self.schedule.images_seen
