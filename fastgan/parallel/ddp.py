"""Every rank holds everything; torch's DistributedDataParallel reduces gradients while the backward pass runs."""

import inspect
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastgan.dist import subgroup
from fastgan.parallel.engine import Output
from fastgan.parallel.sums import SummingEngine, Sums


class DdpEngine(SummingEngine):
    """Wraps the objective, so that each backward pass belongs to one wrapped forward pass, penalties included.

    Args:
        objective: the network with its loss; the first rank's parameters and buffers are sent to all.
        optimizer: over the parameters of the objective.
        communication_dtype: in which gradients are sent and averaged; None for their own.
        overlap: the averages may still be under way after the backward pass, until the gradient is needed.
        group: the ranks that train the network together, from `fastgan.dist.subgroup`; None for all.
        timeout_seconds: longest wait for another rank, in a group that the engine has to make itself.
    """

    def __init__(
        self,
        objective: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        timeout_seconds: float,
        communication_dtype: torch.dtype | None = None,
        overlap: bool = False,
        group: torch_dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(objective, optimizer=optimizer, communication_dtype=communication_dtype, group=group)
        options: dict[str, Any] = {"gradient_as_bucket_view": True, **_no_buffer_sync()}
        reducing = _default_group(timeout_seconds) if group is None else group
        self._wrapped = DistributedDataParallel(objective, process_group=reducing, **options)
        self._overlap = overlap
        if overlap or communication_dtype is not None:
            self._wrapped.register_comm_hook(self._sums, _start_mean)
        # DDP averages; the weights of micro-batches are shares of the global batch, which must be summed.
        self._num_ranks = self._sums.num_ranks

    def __call__(self, *args: Any, is_last: bool = True, **kwargs: Any) -> Output:
        """The wrapped forward pass; DDP must know before it whether the backward pass will communicate."""
        self._wrapped.require_backward_grad_sync = is_last
        output: Output = self._wrapped(*args, **kwargs)
        return output

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`."""
        super().backward(loss, weight=weight * self._num_ranks, is_last=is_last)
        if not self._overlap:
            self.wait()


def _default_group(timeout_seconds: float) -> torch_dist.ProcessGroup | None:
    """None, the default group; under TORCH_DISTRIBUTED_DEBUG=DETAIL one without its checks, which crash DDP (2.13)."""
    debug: Any = torch_dist  # These names are public, but not in torch's types.
    if debug.get_debug_level() != debug.DebugLevel.DETAIL:
        return None
    return subgroup(range(torch_dist.get_world_size()), timeout_seconds=timeout_seconds)


def _no_buffer_sync() -> dict[str, bool]:
    """Buffers follow from the weights and are equal on all ranks; torch 2.13 renamed the switch that says so."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


def _start_mean(
    sums: Sums,
    bucket: torch_dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """Starts the mean of the bucket over all ranks and says that it is done, so that DDP does not wait for it.

    Gradients are views of the bucket, which is not used again before `Sums.wait`. DDP insists on these annotations.
    """
    sums.start(bucket.buffer().mul_(1 / sums.num_ranks))
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done
