"""Means of what the steps between two ticks report, kept on the device until they are read."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fastgan.dist import ALONE, World, sum_over_ranks
from fastgan.errors import TrainingError


class Statistics:
    """Weighted means of named scalars. Reading costs one transfer for all of them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor], *, weight: float) -> None:
        """Counts each value `weight` times in the mean of its name."""
        for name, value in values.items():
            term = value.detach() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def read(self, world: World = ALONE) -> dict[str, float]:
        """The means by name over all ranks, which read the same names together; empty when nothing was added."""
        if not self._sums:
            return {}
        sums = torch.stack([value.float() for value in self._sums.values()]).tolist()
        weights = [self._weights[name] for name in self._sums]
        totals = sum_over_ranks(world, torch.tensor([sums, weights], dtype=torch.float64)).tolist()
        return {name: total / weight for name, total, weight in zip(self._sums, *totals, strict=True)}

    def count(self, name: str, *, num_images: int) -> tuple[int, int]:
        """The sum of `name` over this rank's images, a whole number, and how many these are; 0 where there is none.

        Args:
            num_images: of the batch, in whose parts the values were added.
        """
        if name not in self._sums:
            return 0, 0
        return round(float(self._sums[name]) * num_images), round(self._weights[name] * num_images)

    def total(self) -> Tensor:
        """The sum of all that was added, on its device: not finite if anything is not."""
        return torch.stack([value.float() for value in self._sums.values()]).sum()

    def merge(self, other: "Statistics") -> None:
        """Counts all that `other` counts."""
        for name, total in other._sums.items():
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._weights[name] = self._weights.get(name, 0.0) + other._weights[name]


class FiniteGuard:
    """Refuses NaN and infinity, one step late, so that a GPU need not be waited for in the step that it works on.

    Several ranks never see them: `Agreement` has skipped such updates on all of them. One rank alone must not stop.
    """

    def __init__(self, world: World = ALONE) -> None:
        self._is_alone = world.num_ranks == 1
        self._unread: tuple[Statistics, int, int] | None = None

    def watch(self, statistics: Statistics, *, step: int, images_seen: int) -> None:
        """Checks the step before, and remembers this one.

        Raises:
            TrainingError: as `check`.
        """
        self.check()
        self._unread = (statistics, step, images_seen) if self._is_alone else None

    def check(self) -> None:
        """Checks what is remembered; call it before the state is saved.

        Raises:
            TrainingError: naming the first value that is not finite, and what to do.
        """
        if self._unread is None:
            return
        (statistics, step, images_seen), self._unread = self._unread, None
        for name, value in statistics.read().items():
            if not math.isfinite(value):
                raise diverged(f"{name}={value} at step {step}", images_seen=images_seen)


def diverged(what: str, *, images_seen: int) -> TrainingError:
    """The error of a run whose numbers are no longer finite."""
    return TrainingError(
        f"{what} ({images_seen:,} images seen): training diverged; this state is not saved, what was saved before is "
        "unharmed; start again with lower optimizer.discriminator.learning_rate and "
        "optimizer.generator.learning_rate, or add a penalty"
    )
