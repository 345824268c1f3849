"""Weights of one network on their way from the rank that publishes them to ranks that only read them.

They travel as one flat tensor of bytes, parameters and buffers behind a header of whole numbers, by a broadcast that
nobody waits for until the weights are needed. So a network that is being read is not written to, and one that is being
sent may be changed at once.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from math import prod
from typing import NamedTuple

import torch
import torch.distributed as torch_dist
from torch import Tensor

from fastgan.errors import DistributedError

# Step and version; eight bytes each.
_HEADER_BYTES = 16
# Every tensor begins at a multiple of this, as its type demands.
_ALIGNMENT = 16


class FlatCopy:
    """A copy of named tensors in one tensor of bytes, in their order.

    Args:
        like: tensors of the names, shapes and types that it is for; their numbers are not copied.
        device: where it is; None for where they are.
    """

    def __init__(self, like: Mapping[str, Tensor], *, device: torch.device | str | None = None) -> None:
        sizes = [prod(value.shape) * value.element_size() for value in like.values()]
        padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        place = device or next(iter(like.values())).device
        self.bytes = torch.zeros(_HEADER_BYTES + sum(padded), dtype=torch.uint8, device=place)
        self._header = self.bytes[:_HEADER_BYTES].view(torch.int64)
        self.tensors: dict[str, Tensor] = {}
        start = _HEADER_BYTES
        for (name, value), size, room in zip(like.items(), sizes, padded, strict=True):
            self.tensors[name] = self.bytes[start : start + size].view(value.dtype).view(value.shape)
            start += room

    def fill(self, tensors: Mapping[str, Tensor], *, step: int, version: int) -> None:
        """Copies the tensors into it."""
        torch._foreach_copy_(list(self.tensors.values()), [tensors[name] for name in self.tensors])
        self._header.copy_(torch.tensor([step, version]))

    def copy_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies what it holds into the tensors."""
        torch._foreach_copy_([tensors[name] for name in self.tensors], list(self.tensors.values()))

    @property
    def header(self) -> tuple[int, int]:
        """Step and version of what it holds; waits for the device."""
        step, version = self._header.tolist()
        return step, version


class Snapshot(NamedTuple):
    """Version `version` as published in step `step`, of which all members know when they start it."""

    step: int
    version: int
    copy: FlatCopy
    work: torch_dist.Work | None


class Channel:
    """One rank's end of the way of one network's weights; all members start the same publications in the same order.

    Args:
        network: what messages call it.
        tensors: its parameters and buffers on this rank: where weights come from, or where they go.
        source: the rank that publishes, of all ranks of the run.
        group: it and the ranks that read.
        num_buffers: publications that may be under way at a time; a source waits rather than start one more.
    """

    def __init__(
        self,
        network: str,
        tensors: Mapping[str, Tensor],
        *,
        source: int,
        group: torch_dist.ProcessGroup,
        num_buffers: int,
    ) -> None:
        self.network = network
        self.is_source = torch_dist.get_rank() == source
        # Of the weights that a reader has: when they were published, and which version they are.
        self.step = self.version = 0
        self._tensors, self._source, self._group = dict(tensors), source, group
        self._num_buffers = num_buffers
        self._free: list[FlatCopy] = []
        self._underway: deque[Snapshot] = deque()

    @property
    def underway(self) -> tuple[int, ...]:
        """The steps of the publications that were started and not taken yet, oldest first."""
        return tuple(snapshot.step for snapshot in self._underway)

    @property
    def num_arrived(self) -> int:
        """How many of the oldest of `underway` need not be waited for."""
        for number, snapshot in enumerate(self._underway):
            if snapshot.work is not None and not snapshot.work.is_completed():
                return number
        return len(self._underway)

    def start(self, *, step: int, version: int) -> None:
        """Publishes the weights as they are now, or begins to receive them."""
        if self.is_source:
            self._reclaim()
        copy = self._free.pop() if self._free else FlatCopy(self._tensors)
        if self.is_source:
            copy.fill(self._tensors, step=step, version=version)
        work = torch_dist.broadcast(copy.bytes, src=self._source, group=self._group, async_op=True)
        self._underway.append(Snapshot(step, version, copy, work))

    def take(self, number: int) -> None:
        """Waits for the oldest `number` publications, and reads the last of them from now on.

        Raises:
            DistributedError: if another version arrives than the plan of this rank names.
        """
        for place in range(number):
            snapshot = self._underway.popleft()
            if snapshot.work is not None:
                snapshot.work.wait()
            self._check(snapshot)
            if place == number - 1:
                snapshot.copy.copy_to(self._tensors)
                self.step, self.version = snapshot.step, snapshot.version
            self._free.append(snapshot.copy)

    def settle(self) -> None:
        """Waits for all that is under way; what arrives is not taken."""
        for place, snapshot in enumerate(self._underway):
            if snapshot.work is not None:
                snapshot.work.wait()
                self._underway[place] = snapshot._replace(work=None)

    def at_hand(self) -> dict[str, Tensor]:
        """`STEP.VERSION.NAME` to tensor of what a reader has: the weights in use, and those that have settled."""
        found = {f"{self.step}.{self.version}.{name}": value for name, value in self._tensors.items()}
        for snapshot in self._underway:
            assert snapshot.work is None, "publications must settle before they are saved"
            key = f"{snapshot.step}.{snapshot.version}"
            found |= {f"{key}.{name}": value for name, value in snapshot.copy.tensors.items()}
        return found

    def restore(self, snapshots: Iterable[tuple[int, int, Mapping[str, Tensor]]]) -> None:
        """A reader goes on with weights of a checkpoint: step, version and tensors in use, then those to be taken."""
        for number, (step, version, tensors) in enumerate(snapshots):
            copy = FlatCopy(self._tensors)
            copy.fill(tensors, step=step, version=version)
            self._underway.append(Snapshot(step, version, copy, None))
            if number == 0:
                self.take(1)

    def _reclaim(self) -> None:
        """Buffers of what has been sent are free again."""
        while self._underway and (self.num_arrived or len(self._underway) >= self._num_buffers):
            snapshot = self._underway.popleft()
            if snapshot.work is not None:
                snapshot.work.wait()
            self._free.append(snapshot.copy)

    def _check(self, snapshot: Snapshot) -> None:
        step, version = snapshot.copy.header
        if (step, version) != (snapshot.step, snapshot.version):
            expected = f"version {snapshot.version} of step {snapshot.step} was expected"
            raise DistributedError(
                f"version {version} of the {self.network}, published in step {step}, arrived where {expected}: the "
                "ranks follow different plans; give all machines the same command and the same checkpoint"
            )
