"""From a choice to an engine."""

from collections.abc import Mapping
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
    communication_dtype: torch.dtype | None = None,
    overlap: bool = False,
    group: torch_dist.ProcessGroup | None = None,
    deepspeed: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine around the objective, whose network has its weights already: sharding engines take them over.

    Args:
        make_optimizer: builds the optimizer over the objective's parameters, sharded or not.
        communication_dtype: of `flat` and `ddp`: in which gradients are sent.
        overlap: of `flat` and `ddp`: communicate while other things are computed.
        group: of `flat` and `ddp`: the ranks that train this network; None for all.
        deepspeed: settings from `zero_config.deepspeed_settings`, for `deepspeed`.
    """
    # Only the engine that is used is imported: torch without distributed support can still train alone.
    if choice.kind == "single":
        return SingleEngine(objective, optimizer=make_optimizer(objective))
    if choice.kind in {"flat", "ddp"}:
        from fastgan.parallel.ddp import DdpEngine
        from fastgan.parallel.flat import FlatEngine

        kind = FlatEngine if choice.kind == "flat" else DdpEngine
        options: dict[str, Any] = {"communication_dtype": communication_dtype, "overlap": overlap, "group": group}
        return kind(objective, optimizer=make_optimizer(objective), **options)
    if choice.kind == "fsdp2":
        from fastgan.parallel.fsdp2 import Fsdp2Engine

        return Fsdp2Engine(objective, make_optimizer=make_optimizer, device=device)
    assert choice.kind == "deepspeed"
    assert deepspeed is not None
    from fastgan.parallel.zero import ZeroEngine

    return ZeroEngine(objective, make_optimizer=make_optimizer, settings=deepspeed, device=device)
