"""What a computation asks of torch, counted instead of timed: the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Where torch registers its collectives, and where it registers those that can be traced.
_COLLECTIVE_NAMESPACES = {"c10d", "_c10d_functional", "_c10d_functional_autograd"}
# Of those, what only waits for one that has been counted.
_WAITS = {"wait_tensor"}


class Counts(NamedTuple):
    """num_ops: calls of torch's operators below autograd, views included. num_bytes_allocated: of their new results.

    num_collectives, num_bytes_sent: calls that communicate, and the tensors that each rank hands to them.
    """

    num_ops: int
    num_bytes_allocated: int
    num_collectives: int
    num_bytes_sent: int


def count_ops(call: Callable[[], Any]) -> Counts:
    """The counts of one call. Operators that a kernel uses inside itself are not seen."""
    with _Counter() as counter:
        call()
    return Counts(counter.num_ops, counter.num_bytes, counter.num_collectives, counter.num_bytes_sent)


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.num_ops = self.num_bytes = self.num_collectives = self.num_bytes_sent = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(x): _num_bytes(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = {_storage(x): _num_bytes(x) for x in tree_leaves(result) if isinstance(x, Tensor)}
        self.num_ops += 1
        self.num_bytes += sum(size for key, size in made.items() if key not in given)
        if func.namespace in _COLLECTIVE_NAMESPACES and func._opname not in _WAITS:
            self.num_collectives += 1
            self.num_bytes_sent += sum(given.values())
        return result


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _num_bytes(x: Tensor) -> int:
    return x.untyped_storage().nbytes()
