"""From a choice to an engine."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import nn

from fastgan.parallel.choice import EngineChoice
from fastgan.parallel.engine import Engine, MakeOptimizer
from fastgan.parallel.single import SingleEngine


def make_engine(
    choice: EngineChoice,
    objective: nn.Module,
    *,
    make_optimizer: MakeOptimizer,
    device: torch.device,
    timeout_seconds: float,
    communication_dtype: torch.dtype | None = None,
    overlap: bool = False,
    group: torch_dist.ProcessGroup | None = None,
    deepspeed: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine around the objective, whose network has its weights already: sharding engines take them over.

    Args:
        make_optimizer: builds the optimizer over the objective's parameters, sharded or not.
        timeout_seconds: longest wait for another rank, also in process groups that an engine makes itself.
        communication_dtype, overlap, group: of `flat` and `ddp`; `DdpEngine` says what they are.
        deepspeed: settings from `zero_config.deepspeed_settings`, for `deepspeed`.
    """
    # Only the engine that is used is imported: torch without distributed support can still train alone.
    if choice.kind == "single":
        return SingleEngine(objective, optimizer=make_optimizer(objective))
    if choice.kind in {"flat", "ddp"}:
        from fastgan.parallel.ddp import DdpEngine
        from fastgan.parallel.flat import FlatEngine

        kind = FlatEngine if choice.kind == "flat" else partial(DdpEngine, timeout_seconds=timeout_seconds)
        options: dict[str, Any] = {"communication_dtype": communication_dtype, "overlap": overlap, "group": group}
        return kind(objective, optimizer=make_optimizer(objective), **options)
    if choice.kind == "fsdp2":
        from fastgan.parallel.fsdp2 import Fsdp2Engine

        return Fsdp2Engine(objective, make_optimizer=make_optimizer, device=device)
    from fastgan.parallel.zero import ZeroEngine

    assert deepspeed is not None
    options = {"settings": deepspeed, "device": device, "timeout_seconds": timeout_seconds}
    return ZeroEngine(objective, make_optimizer=make_optimizer, **options)
