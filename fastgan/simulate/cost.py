"""How long a rank computes: one line per part of an update, in seconds for a pass and seconds for each of its images.

Shape legend: R ranks of a group.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgan.errors import ConfigError
from fastgan.schedule import Collective, Compute, Network
from fastgan.simulate.fabric import Links

Seconds = NDArray[np.float64]

# What a computation is made of; penalties add "penalty KIND".
PARTS = (
    "generate",
    "judge_real",
    "learn discriminator",
    "learn generator",
    "learn joint",
    "apply discriminator",
    "apply generator",
)
# Of a pass that ends with a gradient: the backward pass costs about twice the forward pass.
BACKWARD_SHARE = 2 / 3
# The flags, the sign statistic and the step time that ranks vote with.
VOTE_BYTES = 64


class Part(NamedTuple):
    """Seconds that a pass takes whatever it holds, and for each image."""

    fixed: float
    per_image: float = 0.0

    def scaled(self, factor: float) -> "Part":
        """`factor` such passes."""
        return Part(factor * self.fixed, factor * self.per_image)

    def plus(self, other: "Part") -> "Part":
        """This pass and then the other."""
        return Part(self.fixed + other.fixed, self.per_image + other.per_image)

    def seconds(self, images: NDArray[np.int64]) -> Seconds:
        """[R], of a pass over `images` [R]."""
        return self.fixed + self.per_image * images.astype(np.float64)


class Work(NamedTuple):
    """What each rank of a group computes in an update: [R] images in [R] micro-batches of [R] images."""

    images: NDArray[np.int64]
    num_micro_batches: NDArray[np.int64]

    @property
    def size(self) -> NDArray[np.int64]:
        """[R], images of a micro-batch."""
        return self.images // self.num_micro_batches


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Seconds of computations and collectives.

    Args:
        parts: by the names in PARTS, and "penalty KIND"; what is missing is refused when it is needed.
        gradient_bytes: of each network, which is also the size of its weights.
        bucket_bytes: gradients are sent in pieces of this size as the backward pass makes them.
        hides_reduction: whether they are sent during the backward pass (ddp), or after it (flat).
        sent_share: of a gradient's bytes, those that are sent: 1/2 where they are compressed to bf16.
    """

    parts: Mapping[str, Part]
    gradient_bytes: Mapping[Network, float]
    fabric: Links
    bucket_bytes: float = 25 << 20
    hides_reduction: bool = True
    sent_share: float = 1.0

    def compute_seconds(self, action: Compute, work: Work) -> Seconds:
        """[R], how long each rank of the group computes."""
        names = [update.network for update in action.updates]
        size, rest = work.size, work.num_micro_batches - 1
        match action.kind:
            case "apply":
                return self._part(f"apply {names[0]}").seconds(np.zeros_like(size))
            case "judge_real":
                return self._part("judge_real").seconds(size)
            case "generate":
                return self._part("generate").seconds(size) * ~_keeps_fakes(action, work)
        first = self._learn(action).seconds(size)
        # All of the other micro-batches.
        whole = self._learn(action).plus(self._part("generate"))
        if "discriminator" in names:
            whole = whole.plus(self._part("judge_real"))
        return first + rest * whole.seconds(size)

    def collective_seconds(self, collective: Collective, backward_seconds: float = 0.0) -> float:
        """How long the group's streams of communication are busy after all have started it.

        Args:
            backward_seconds: of the pass that made the gradient; its pieces were sent meanwhile but for the last one.
        """
        num_bytes = sum(self.gradient_bytes[network] for network in collective.networks)
        match collective.kind:
            case "vote":
                return self.fabric.all_reduce_seconds(collective.group, VOTE_BYTES)
            case "publish":
                return self.fabric.broadcast_seconds(collective.group, num_bytes)
        num_bytes *= self.sent_share
        seconds = self.fabric.all_reduce_seconds(collective.group, num_bytes)
        if not self.hides_reduction:
            return seconds
        num_buckets = max(1, math.ceil(num_bytes / self.bucket_bytes))
        return seconds - min(seconds, backward_seconds) * (1 - 1 / num_buckets)

    def backward_seconds(self, action: Compute, work: Work) -> Seconds:
        """[R], of the last micro-batch's backward pass."""
        return BACKWARD_SHARE * self._learn(action).seconds(work.size)

    def _learn(self, action: Compute) -> Part:
        """A micro-batch's part of the loss and its backward pass, penalties included."""
        networks = [update.network for update in action.updates]
        part = self._part("learn joint" if len(networks) == 2 else f"learn {networks[0]}")
        for update in action.updates:
            for penalty in update.penalties:
                part = part.plus(self._part(f"penalty {penalty.kind}"))
        return part

    def _part(self, name: str) -> Part:
        if name not in self.parts:
            raise ConfigError(f"nothing says how long {name!r} takes; measure it with fastgan bench step, or give it")
        return self.parts[name]


def parts_from_passes(generator: Part, discriminator: Part, penalties: tuple[str, ...] = ()) -> dict[str, Part]:
    """All parts from one forward pass of each network, where a backward pass costs two forward passes.

    Half of a backward pass is for the weights, which a frozen discriminator does not need. A penalty on the norm of an
    input gradient is that gradient, and a backward pass through it and the forward pass: five forward passes.

    Args:
        generator, discriminator: a forward pass; the time of an optimizer step is part of what is fixed.
    """
    return {
        "generate": generator,
        "judge_real": discriminator,
        "learn discriminator": discriminator.scaled(5),
        "learn generator": discriminator.scaled(2).plus(generator.scaled(2)),
        "learn joint": discriminator.scaled(6).plus(generator.scaled(2)),
        "apply discriminator": Part(0.0),
        "apply generator": Part(0.0),
        **{f"penalty {kind}": discriminator.scaled(5) for kind in penalties},
    }


def _keeps_fakes(action: Compute, work: Work) -> NDArray[np.bool_]:
    """[R], whether a rank has the update's fakes already."""
    update = action.updates[0]
    is_one: NDArray[np.bool_] = work.num_micro_batches == 1
    return is_one if update.shared_fakes and update.network == "generator" else np.zeros_like(is_one)
