"""Every rank holds everything; gradients are summed in flat buckets after the local backward pass.

There are no hooks: autograd runs as on one process, penalties included, and only its result is reduced. That makes this
engine the one that the others are compared with. The sums are started behind the backward pass and awaited where the
gradient is first needed, so that whatever is computed in between hides them.
"""

from fractions import Fraction

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from fastgan.parallel.single import SingleEngine

BUCKET_BYTES = 25 << 20


class FlatEngine(SingleEngine):
    """Sums gradients over all ranks in buckets of parameters of one type.

    Args:
        objective: the network with its loss, with equal parameters on all ranks.
        optimizer: over the parameters of the objective.
        bucket_bytes: a bucket is sent when it holds this much.
        communication_dtype: in which gradients are sent and summed; None for their own.
    """

    def __init__(
        self,
        objective: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        bucket_bytes: int = BUCKET_BYTES,
        communication_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(objective, optimizer=optimizer)
        self._buckets = make_buckets(list(objective.parameters()), bucket_bytes=bucket_bytes)
        self._communication_dtype = communication_dtype
        self._sums: list[tuple[list[nn.Parameter], Tensor, torch_dist.Work]] = []

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`; starts the sums over ranks after the last micro-batch."""
        super().backward(loss, weight=weight, is_last=is_last)
        if is_last:
            self._start_sums()

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

    def wait(self) -> None:
        """Puts the sums that were started into the parameters' `grad`."""
        sums, self._sums = self._sums, []
        for bucket, flat, work in sums:
            work.wait()
            parts = torch.split(flat, [parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(part.view(parameter.shape))

    def _start_sums(self) -> None:
        for bucket in self._buckets:
            for parameter in bucket:
                # Every rank must send equally many numbers, also for a parameter that its batch did not touch.
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            flat = torch.cat([parameter.grad.reshape(-1) for parameter in bucket if parameter.grad is not None])
            flat = flat if self._communication_dtype is None else flat.to(self._communication_dtype)
            work = torch_dist.all_reduce(flat, async_op=True)
            assert work is not None
            self._sums.append((bucket, flat, work))


def make_buckets(parameters: list[nn.Parameter], *, bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Parameters of one type and about `bucket_bytes` each, the last ones first: their gradients are ready first."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        if not buckets or size >= bucket_bytes or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return buckets
