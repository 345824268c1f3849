"""DeepSpeed's ZeRO: stage 0 replicates, 1 shards optimizer state, 2 also gradients, 3 also parameters.

From stage 2 on each micro-batch reduces its gradient, because no rank has room for the whole of it until the last one.

Stage 3 gathers and frees parameters by module hooks, and gathers them where they are read. That cannot serve a backward
pass through a backward pass: the modes `dual` and `approximate` compute penalties there.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.errors import ConfigError
from fastgan.parallel.engine import MakeOptimizer, Output
from fastgan.parallel.optimizer_state import load_optimizer_state, optimizer_state
from fastgan.parallel.pieces import Part, named_tensors, replicated
from fastgan.parallel.zero_config import fitted
from fastgan.parallel.zero_state import load_sharded_state, sharded_network, sharded_state

INSTALL_DEEPSPEED = "pip install 'fastgan[deepspeed]'"


class ZeroEngine:
    """One DeepSpeed engine around the objective.

    Args:
        objective: the network with its loss, with equal parameters on all ranks.
        make_optimizer: builds a torch optimizer over the objective's parameters.
        settings: DeepSpeed's configuration, from `zero_config.deepspeed_settings`.
        device: where the parameters are.
        timeout_seconds: longest wait for another rank, also in the process groups that DeepSpeed makes.
    Raises:
        ConfigError: if deepspeed is not installed.
    """

    def __init__(
        self,
        objective: nn.Module,
        *,
        make_optimizer: MakeOptimizer,
        settings: Mapping[str, Any],
        device: torch.device,
        timeout_seconds: float,
    ) -> None:
        deepspeed = import_deepspeed(device)
        self.objective = objective
        self.stage = int(settings["zero_optimization"]["stage"])
        self.keeps_graph = self.stage < 3
        self._zero = deepspeed.zero
        self._num_ranks = torch.distributed.get_world_size()
        # ZeRO flattens parameters, which must be contiguous for that.
        objective.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        _make_group(deepspeed.utils.groups, timeout_seconds=timeout_seconds)
        config = fitted(settings, num_parameters=sum(parameter.numel() for parameter in objective.parameters()))
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=objective, optimizer=make_optimizer(objective), config=config, dist_init_required=False
        )

    def __call__(self, *args: Any, is_last: bool = True, **kwargs: Any) -> Output:
        """The wrapped forward pass; DeepSpeed must know before it whether the backward pass ends an update."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        output: Output = self._engine(*args, **kwargs)
        return output

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`."""
        del is_last
        # DeepSpeed averages over the ranks.
        self._engine.backward(loss * float(weight * self._num_ranks))

    def step(self) -> None:
        """One optimizer step."""
        self._engine.step()

    def discard(self) -> None:
        """Clears the accumulated gradient without a step."""
        if self.stage == 0:
            self._engine.zero_grad()
            return
        with _overflowing(self._optimizer, stage=self.stage):
            self._engine.step()

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the accumulated global gradient."""
        if self.stage == 0:
            return nn.utils.get_total_norm([p.grad for p in self.objective.parameters() if p.grad is not None]).float()
        if self.stage == 3:
            return self._norm_of_shards()
        norm = torch.as_tensor(self._optimizer.scaled_global_norm(), dtype=torch.float32)
        # DeepSpeed reports a norm that is not finite as -1.
        return torch.where(norm < 0, torch.full_like(norm, torch.nan), norm)

    def _norm_of_shards(self) -> Tensor:
        shards = [shard for group in self._optimizer.averaged_gradients.values() for shard in group or ()]
        squares = torch.stack([shard.float().square().sum() for shard in shards]).sum()
        torch.distributed.all_reduce(squares)
        return squares.sqrt()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While entered, the parameters are whole; only stage 3 communicates."""
        if self.stage < 3:
            yield
            return
        with self._zero.GatheredParameters(list(self.objective.parameters())):
            yield

    def network_part(self, network: nn.Module) -> Part:
        """The whole network from rank 0; on stage 3 this rank's share of each parameter."""
        return sharded_network(network) if self.stage == 3 else replicated(named_tensors(network))

    def optimizer_part(self) -> Part:
        """The whole state from rank 0; from stage 1 on what this rank has of it."""
        if self.stage == 0:
            return replicated(optimizer_state(self._optimizer, self.objective))
        return sharded_state(self._optimizer, self.objective)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the optimizer's state from whole tensors; each rank keeps its shard."""
        if self.stage == 0:
            load_optimizer_state(self._optimizer, self.objective, state)
        else:
            load_sharded_state(self._optimizer, self.objective, state)


@contextmanager
def _overflowing(optimizer: Any, *, stage: int) -> Iterator[None]:
    """While entered, a step takes the path on which DeepSpeed drops an overflowed gradient with all its shards."""

    def overflow(*args: Any, **kwargs: Any) -> bool:
        optimizer.overflow = True
        return bool(optimizer._loss_scale_update_and_overflow_cleanup()) if stage == 3 else True

    name = "_overflow_check_and_loss_scale_update" if stage == 3 else "check_overflow"
    setattr(optimizer, name, overflow)
    ordinary = getattr(optimizer, "check_grad_overflow", None)
    optimizer.check_grad_overflow = True
    try:
        yield
    finally:
        optimizer.check_grad_overflow = ordinary
        delattr(optimizer, name)


def _make_group(groups: Any, *, timeout_seconds: float) -> None:
    """The copy of the group of all ranks that DeepSpeed would make, with torch's timeout of half an hour."""
    if groups._WORLD_GROUP is None:
        groups._WORLD_GROUP = torch.distributed.new_group(timeout=timedelta(seconds=timeout_seconds))


def import_deepspeed(device: torch.device) -> Any:
    """The package, told which device is meant and kept from printing.

    Raises:
        ConfigError: if it is not installed.
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigError(
            f"parallel.engine=deepspeed needs a package that is missing ({error}): {INSTALL_DEEPSPEED}; "
            "or use parallel.engine=ddp or fsdp2"
        ) from None
    deepspeed.utils.logger.setLevel(logging.WARNING)
    if device.type == "cpu":
        # It would be compiled on first use, under a lock that outlives a process that is killed meanwhile.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
