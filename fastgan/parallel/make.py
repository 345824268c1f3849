"""From a choice to an engine."""

from collections.abc import Mapping
from typing import Any

import torch
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
    communication_dtype: torch.dtype | None = None,
    deepspeed: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine around the objective, whose network has its weights already: sharding engines take them over.

    Args:
        make_optimizer: builds the optimizer over the objective's parameters, sharded or not.
        communication_dtype: of `flat` and `ddp`: in which gradients are sent.
        deepspeed: settings from `zero_config.deepspeed_settings`, for `deepspeed`.
    """
    # Only the engine that is used is imported: torch without distributed support can still train alone.
    if choice.kind == "single":
        return SingleEngine(objective, optimizer=make_optimizer(objective))
    if choice.kind == "flat":
        from fastgan.parallel.flat import FlatEngine

        return FlatEngine(objective, optimizer=make_optimizer(objective), communication_dtype=communication_dtype)
    if choice.kind == "ddp":
        from fastgan.parallel.ddp import DdpEngine

        return DdpEngine(objective, optimizer=make_optimizer(objective), communication_dtype=communication_dtype)
    if choice.kind == "fsdp2":
        from fastgan.parallel.fsdp2 import Fsdp2Engine

        return Fsdp2Engine(objective, make_optimizer=make_optimizer, device=device)
    assert choice.kind == "deepspeed"
    assert deepspeed is not None
    from fastgan.parallel.zero import ZeroEngine

    return ZeroEngine(objective, make_optimizer=make_optimizer, settings=deepspeed, device=device)
