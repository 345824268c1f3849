"""How long collectives take: latency and bandwidth within a node and between nodes."""

import math
from dataclasses import dataclass
from typing import Protocol

from fastgan.errors import ConfigError, did_you_mean

ALGORITHMS = ("auto", "ring", "tree")


class Links(Protocol):
    """What says how long a collective of a group takes."""

    def all_reduce_seconds(self, group: range, num_bytes: float) -> float:
        """The sum of `num_bytes` over the ranks of `group`, on all of them."""
        ...

    def broadcast_seconds(self, group: range, num_bytes: float) -> float:
        """`num_bytes` from one rank of `group` to the others."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """Nodes of `gpus_per_node` ranks each, in the order of the ranks, and the links that every rank has.

    Args:
        intra_bytes_per_second: of one rank to the others of its node, one way.
        inter_bytes_per_second: of one rank to another node, one way.
        intra_latency_seconds: of one message within a node; inter_latency_seconds: between nodes.
        algorithm: of all-reduces; `auto` takes whichever is faster, as NCCL does.
    Raises:
        ConfigError: if a number is not positive and finite, or there is no such algorithm.
    """

    gpus_per_node: int
    intra_bytes_per_second: float
    inter_bytes_per_second: float
    intra_latency_seconds: float = 3e-6
    inter_latency_seconds: float = 10e-6
    algorithm: str = "auto"

    def __post_init__(self) -> None:
        for name in ("gpus_per_node", "intra_bytes_per_second", "inter_bytes_per_second"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name}={value} must be positive and finite; give what the machine has")
        if self.algorithm not in ALGORITHMS:
            rule = f"must be one of {', '.join(ALGORITHMS)}{did_you_mean(self.algorithm, ALGORITHMS)}"
            raise ConfigError(f"algorithm={self.algorithm} {rule}; auto is right for NCCL")

    def all_reduce_seconds(self, group: range, num_bytes: float) -> float:
        """The sum of `num_bytes` over the ranks of `group`, on all of them.

        ring   2 (n - 1) messages of 1 / n of the bytes each, one after the other, at the pace of the slowest link
        tree   the bytes up and down two trees that share them: twice the bytes, but only 2 log2(n) latencies
        """
        if len(group) == 1:
            return 0.0
        found = {
            "ring": 2 * (len(group) - 1) * (self._latency(group) + num_bytes / len(group) / self._bandwidth(group)),
            "tree": 2 * (self._depth_seconds(group) + num_bytes / self._bandwidth(group)),
        }
        return min(found.values()) if self.algorithm == "auto" else found[self.algorithm]

    def broadcast_seconds(self, group: range, num_bytes: float) -> float:
        """`num_bytes` from one rank of `group` to the others, down a tree in small pieces."""
        if len(group) == 1:
            return 0.0
        return self._depth_seconds(group) + num_bytes / self._bandwidth(group)

    def num_nodes(self, group: range) -> int:
        """Nodes that `group` touches."""
        return (group.stop - 1) // self.gpus_per_node - group.start // self.gpus_per_node + 1

    def _bandwidth(self, group: range) -> float:
        if self.num_nodes(group) == 1:
            return self.intra_bytes_per_second
        return min(self.intra_bytes_per_second, self.inter_bytes_per_second)

    def _latency(self, group: range) -> float:
        return self.intra_latency_seconds if self.num_nodes(group) == 1 else self.inter_latency_seconds

    def _depth_seconds(self, group: range) -> float:
        """From the root of a tree to its leaves: over the nodes, then within a node."""
        num_local = min(len(group), self.gpus_per_node)
        within = math.ceil(math.log2(num_local)) * self.intra_latency_seconds
        return within + math.ceil(math.log2(self.num_nodes(group))) * self.inter_latency_seconds
