"""Where a schedule stands: five integers, the same on all ranks, and all that a resume needs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from fastgan.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class ScheduleState:
    """Counts since the start of the run; none of them depends on the number of ranks."""

    step: int = 0
    images_seen: int = 0
    """Real images shown to the discriminator, hence also the number of the next real sample."""
    discriminator_updates: int = 0
    generator_updates: int = 0
    next_latent: int = 0
    """Number of the next latent; latents are numbered apart from real samples."""

    def to_json(self) -> dict[str, int]:
        """A dictionary of plain integers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """The inverse of `to_json`.

        Raises:
            CheckpointError: if a key is missing or unknown, or a value is not an integer >= 0.
        """
        keys = {field.name for field in fields(cls)}
        for problem, names in (("lacks", keys - values.keys()), ("has the unknown", values.keys() - keys)):
            if names:
                raise CheckpointError(
                    f"the schedule state {problem} {', '.join(sorted(names))}; its keys are {', '.join(sorted(keys))}: "
                    "resume with the version of fastgan that wrote it"
                )
        counts: dict[str, int] = {}
        for key, value in values.items():
            if type(value) is not int or value < 0:
                raise CheckpointError(
                    f"schedule state: {key}={value!r} must be an integer of at least 0; use an earlier checkpoint"
                )
            counts[key] = value
        return cls(**counts)
