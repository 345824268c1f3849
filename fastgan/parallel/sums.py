"""Sums of flat tensors over all ranks, started early and awaited late."""

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from fastgan.parallel.optimizer_state import optimizer_state
from fastgan.parallel.pieces import Part, named_tensors, replicated
from fastgan.parallel.single import SingleEngine


class Sums:
    """Sums that are under way. Every rank starts the same ones in the same order.

    Args:
        communication_dtype: in which numbers are sent and added; None for their own.
        group: the ranks that take part; None for all.
    """

    def __init__(
        self, communication_dtype: torch.dtype | None = None, *, group: torch_dist.ProcessGroup | None = None
    ) -> None:
        self._dtype = communication_dtype
        self._group = group
        self._unfinished: list[tuple[Tensor, Tensor, torch_dist.Work]] = []

    @property
    def num_ranks(self) -> int:
        """How many ranks take part."""
        return torch_dist.get_world_size(self._group)

    def start(self, values: Tensor) -> None:
        """Begins to add up `values` over the ranks; they hold the sum after `wait` and must not be touched before."""
        sent = values if self._dtype is None else values.to(self._dtype)
        work = torch_dist.all_reduce(sent, group=self._group, async_op=True)
        assert work is not None
        self._unfinished.append((values, sent, work))

    def wait(self) -> None:
        """Puts the sums where their terms were. On a GPU later work waits, not the process."""
        unfinished, self._unfinished = self._unfinished, []
        for values, sent, work in unfinished:
            work.wait()
            if sent is not values:
                values.copy_(sent)


class SummingEngine(SingleEngine):
    """An engine whose sums may still be under way after the backward pass: they are awaited where they are needed.

    Args:
        objective: the network with its loss, with equal parameters on all ranks.
        optimizer: over the parameters of the objective.
        communication_dtype: in which gradients are sent and summed; None for their own.
        group: the ranks that train the network together; None for all.
    """

    def __init__(
        self,
        objective: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        communication_dtype: torch.dtype | None = None,
        group: torch_dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(objective, optimizer=optimizer)
        self._group = group
        self._sums = Sums(communication_dtype, group=group)

    def wait(self) -> None:
        """Makes the parameters' `grad` the global gradient."""
        self._sums.wait()

    def step(self) -> None:
        """One optimizer step with the global gradient, which is cleared."""
        self.wait()
        super().step()

    def discard(self) -> None:
        """Clears the gradient without a step."""
        self.wait()
        super().discard()

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the global gradient."""
        self.wait()
        return super().gradient_norm()

    def network_part(self, network: nn.Module) -> Part:
        """The whole network, from the first rank."""
        return replicated(named_tensors(network), self._group)

    def optimizer_part(self) -> Part:
        """The whole state as `PARAMETER.QUANTITY`, from the first rank."""
        return replicated(optimizer_state(self.optimizer, self.objective), self._group)
