"""Parameters, gradients and optimizer state are sharded over the ranks by torch's `fully_shard`.

The objective is one shard group. It stays whole from the forward to the end of the backward pass, because a penalty
differentiates twice through the same parameters; it is sharded again before the optimizer step, which updates the
shards. (Left whole, the shards would be updated and never be seen: the network would not train, in silence.)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fastgan.parallel.engine import MakeOptimizer, Output
from fastgan.parallel.optimizer_state import load_optimizer_state, optimizer_state
from fastgan.parallel.pieces import Part, Piece, named_tensors, replicated


class Fsdp2Engine:
    """Shards the objective's parameters in place.

    Args:
        objective: the network with its loss, with equal parameters on all ranks.
        make_optimizer: builds the optimizer over the sharded parameters.
        device: where the parameters are.
    """

    # A graph from before the wrapped forward pass gives its gradient to nobody, in silence.
    keeps_graph = False

    def __init__(self, objective: nn.Module, *, make_optimizer: MakeOptimizer, device: torch.device) -> None:
        # Shards are slices of contiguous tensors.
        objective.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._num_ranks = torch.distributed.get_world_size()
        mesh = init_device_mesh(device.type, (self._num_ranks,))
        sharded = fully_shard(objective, mesh=mesh, reshard_after_forward=False)
        assert isinstance(sharded, FSDPModule)
        sharded.set_reshard_after_backward(False)
        self.objective: nn.Module = objective
        self._sharded = sharded
        self._depth = 0
        self.optimizer = make_optimizer(objective)

    def __call__(self, *args: Any, is_last: bool = True, **kwargs: Any) -> Output:
        """The objective's forward pass; gathers the parameters."""
        self._sharded.set_requires_gradient_sync(is_last)
        output: Output = self.objective(*args, **kwargs)
        return output

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`; reduced to shards after the last micro-batch."""
        del is_last
        # fully_shard averages over the ranks.
        (loss * float(weight * self._num_ranks)).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """One optimizer step on the shards."""
        self._sharded.reshard()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def discard(self) -> None:
        """Clears the accumulated gradient without a step."""
        self._sharded.reshard()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the global gradient."""
        self._sharded.reshard()
        norm = nn.utils.get_total_norm([p.grad for p in self.objective.parameters() if p.grad is not None])
        return _whole(norm).float()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While entered, the parameters are whole; entering it again inside costs nothing."""
        self._depth += 1
        if self._depth == 1:
            self._sharded.unshard()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._sharded.reshard()

    def network_part(self, network: nn.Module) -> Part:
        """This rank's rows of each parameter; buffers, which all ranks hold, from rank 0."""
        self._sharded.reshard()
        return _part(named_tensors(network))

    def optimizer_part(self) -> Part:
        """This rank's rows of the state of each parameter; scalars from rank 0."""
        self._sharded.reshard()
        return _part(optimizer_state(self.optimizer, self.objective))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the optimizer's state from whole tensors; each rank keeps its shard."""
        self._sharded.reshard()
        load_optimizer_state(self.optimizer, self.objective, state, place=_shard_like)


def _whole(value: Tensor) -> Tensor:
    whole: Tensor = value.full_tensor() if isinstance(value, DTensor) else value
    return whole


def _part(tensors: Mapping[str, Tensor]) -> Part:
    """Shards as ranges: `fully_shard` gives each rank ceil(rows / ranks) rows, the last ones fewer or none."""
    pieces = replicated({name: value for name, value in tensors.items() if not isinstance(value, DTensor)}).pieces
    for name, value in tensors.items():
        if isinstance(value, DTensor):
            rows_per_rank = -(-value.shape[0] // value.device_mesh.size())
            first = rows_per_rank * value.device_mesh.get_local_rank() * prod(value.shape[1:])
            local = value.to_local().detach().contiguous().reshape(-1)
            if local.numel():
                pieces[name] = Piece(tuple(value.shape), first, local)
    return Part(pieces, is_sharded=True)


def _shard_like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """This rank's shard of `value`, laid out as the parameter; all ranks hold the same `value`."""
    assert isinstance(parameter, DTensor)
    moved = value.to(parameter.device)
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)
