"""The optimizer state of ZeRO stages 1 to 3 as whole, named tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.parallel.optimizer_state import checked_states


def sharded_state(optimizer: Any, module: nn.Module) -> dict[str, Tensor]:
    """`PARAMETER.QUANTITY` to whole tensor, on the CPU; empty before the first step. All ranks call it together."""
    from deepspeed.utils import safe_get_full_optimizer_state

    flat: dict[str, Tensor] = next(iter(optimizer.optimizer.state.values()), {})
    state: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for quantity, value in flat.items():
            whole = value if value.dim() == 0 else safe_get_full_optimizer_state(parameter, quantity)
            state[f"{name}.{quantity}"] = whole.detach().cpu().clone()
    return state


def load_sharded_state(optimizer: Any, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives each rank its shard of whole, named tensors.

    Raises:
        CheckpointError: if a tensor belongs to no parameter, or its shape is not that of its parameter.
    """
    shapes = {name: torch.Size(getattr(p, "ds_shape", p.shape)) for name, p in module.named_parameters()}
    restored = checked_states(state, shapes)
    if not restored:
        return
    first = next(iter(restored.values()))
    for shard in _shards(optimizer):
        optimizer.optimizer.state[shard] = {
            quantity: value.clone() if value.dim() == 0 else torch.zeros_like(shard)
            for quantity, value in first.items()
        }
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in module.named_parameters():
        for quantity, value in restored[name].items():
            if value.dim() > 0:
                _set(parameter, value.to(parameter.device), quantity)


def _set(parameter: nn.Parameter, value: Tensor, quantity: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    shard = getattr(parameter, "ds_tensor", None)
    if shard is None:
        safe_set_full_optimizer_state(parameter, value, quantity)
        return
    # Stage 3. DeepSpeed's call for whole values fails for a parameter with fewer numbers than ranks.
    flat = value.new_zeros(shard.ds_numel * torch.distributed.get_world_size())
    flat[: value.numel()] = value.flatten()
    first = shard.ds_numel * torch.distributed.get_rank()
    safe_set_local_optimizer_state(parameter, flat[first : first + shard.ds_numel], quantity)


def _shards(optimizer: Any) -> list[Tensor]:
    """What the inner optimizer updates on this rank."""
    if hasattr(optimizer, "single_partition_of_fp32_groups"):
        shards: list[Tensor] = optimizer.single_partition_of_fp32_groups
    else:
        shards = optimizer.fp32_partitioned_groups_flat
    return shards
