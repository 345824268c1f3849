"""Every rank holds everything; gradients are summed over the ranks in flat buckets.

By default the sums start behind the local backward pass, without a hook: autograd runs as on one process, penalties
included, and only its result is reduced. That makes this engine the one that the others are compared with. With
`overlap` a bucket is sent as soon as the last backward pass of the update has finished its gradients; the same buckets
with the same content, so that no bit of the result depends on it. Either way the sums are awaited where the gradient is
first needed, and what is computed in between hides them.
"""

from fractions import Fraction

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from fastgan.parallel.sums import SummingEngine

BUCKET_BYTES = 25 << 20


class FlatEngine(SummingEngine):
    """Sums gradients over all ranks in buckets of parameters of one type.

    Args:
        objective: the network with its loss, with equal parameters on all ranks.
        optimizer: over the parameters of the objective.
        bucket_bytes: a bucket is sent when it holds this much.
        communication_dtype: in which gradients are sent and summed; None for their own.
        overlap: send while the backward pass is still running.
        group: the ranks that train the network together; None for all.
    """

    def __init__(
        self,
        objective: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        bucket_bytes: int = BUCKET_BYTES,
        communication_dtype: torch.dtype | None = None,
        overlap: bool = False,
        group: torch_dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(objective, optimizer=optimizer, communication_dtype=communication_dtype, group=group)
        self._buckets = make_buckets(list(objective.parameters()), bucket_bytes=bucket_bytes)
        self._sent: list[Tensor] = []
        # Parameters of each bucket whose gradient the last backward pass still owes; empty outside of that pass.
        self._owed: list[set[nn.Parameter]] = []
        if overlap:
            for parameter in objective.parameters():
                parameter.register_post_accumulate_grad_hook(self._note_gradient)  # type: ignore[no-untyped-call]

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`; the sums over ranks have started after the last micro-batch."""
        if is_last:
            self._owed = [set(bucket) for bucket in self._buckets]
        super().backward(loss, weight=weight, is_last=is_last)
        if is_last:
            self._owed = []
            # Also a gradient that this rank's batch did not touch: every rank sends equally many numbers.
            self._send_until(len(self._buckets))

    def wait(self) -> None:
        """Puts the sums that were started into the parameters' `grad`."""
        super().wait()
        sent, self._sent = self._sent, []
        # Nothing was sent when there was no backward pass since the step before.
        for bucket, flat in zip(self._buckets, sent, strict=False):
            parts = torch.split(flat, [parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(part.view(parameter.shape))

    def _note_gradient(self, parameter: Tensor) -> None:
        """Sends the buckets that are complete, each after those before it: in the same order on all ranks."""
        if not self._owed:
            return
        for owed in self._owed:
            owed.discard(parameter)
        self._send_until(next((i for i, owed in enumerate(self._owed) if owed), len(self._owed)))

    def _send_until(self, end: int) -> None:
        """Starts the sums of the buckets before number `end` that have not been sent."""
        for bucket in self._buckets[len(self._sent) : end]:
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            flat = torch.cat([parameter.grad.reshape(-1) for parameter in bucket if parameter.grad is not None])
            self._sums.start(flat)
            self._sent.append(flat)


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
