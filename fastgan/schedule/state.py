"""Where a schedule stands: a few integers, the same on all ranks, and all that a resume needs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from fastgan.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class ScheduleState:
    """Counts since the start of the run, and what has been decided for the next two steps.

    Decisions take effect two steps after the numbers that they follow from, so that the next step is always known
    before the present one has ended. Only `shares` depend on the number of ranks; with another number they start again.
    """

    step: int = 0
    images_seen: int = 0
    """Real images shown to the discriminator, hence also the number of the next real sample."""
    discriminator_updates: int = 0
    generator_updates: int = 0
    next_latent: int = 0
    """Number of the next latent; latents are numbered apart from real samples."""
    balance: tuple[int, ...] = ()
    """Of `Balance`: discriminator updates of the next step and of the one after; steps in a row above and below."""
    shares: tuple[int, ...] = ()
    """Of measured shares: every rank's micro-batches in the next step; empty while they are equal."""
    later_shares: tuple[int, ...] = ()
    """The same of the step after."""

    def to_json(self) -> dict[str, int | list[int]]:
        """A dictionary of integers and lists of integers."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """The inverse of `to_json`; decisions that are missing, as in older checkpoints, have not been made.

        Raises:
            CheckpointError: if a key is missing or unknown, or a value is not an integer >= 0 or a list of such.
        """
        keys = {field.name for field in fields(cls)}
        counts = {field.name for field in fields(cls) if field.default == 0}
        for problem, names in (("lacks", counts - values.keys()), ("has the unknown", values.keys() - keys)):
            if names:
                raise CheckpointError(
                    f"the schedule state {problem} {', '.join(sorted(names))}; its keys are {', '.join(sorted(keys))}: "
                    "resume with the version of fastgan that wrote it"
                )
        found: dict[str, int | tuple[int, ...]] = {}
        for key, value in values.items():
            if key in counts:
                found[key] = _count(key, value)
            elif not isinstance(value, list):
                raise CheckpointError(f"schedule state: {key}={value!r} must be a list; use an earlier checkpoint")
            elif key == "balance" and len(value) not in (0, 4):
                rule = "must have 4 numbers or none"
                raise CheckpointError(f"schedule state: {key}={value!r} {rule}; use an earlier checkpoint")
            else:
                found[key] = tuple(_count(key, number) for number in value)
        return cls(**found)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """Integers that all ranks have reduced in a step, and from which all decisions are made.

    sign_sum: sum over the `num_judged` images of the discriminator's updates of the sign of its margin: it equals
        `num_judged` where every real image beats its fake, and is near 0 where it cannot tell.
    rank_microseconds: how long every rank computed, waiting not counted; empty when it was not measured.
    """

    sign_sum: int = 0
    num_judged: int = 0
    rank_microseconds: tuple[int, ...] = ()


def _count(key: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise CheckpointError(
            f"schedule state: {key}={value!r} must be an integer of at least 0; use an earlier checkpoint"
        )
    return value
