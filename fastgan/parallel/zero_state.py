"""The optimizer state of ZeRO stages 1 to 3, and the parameters of stage 3, as pieces of named tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.parallel.optimizer_state import checked_states
from fastgan.parallel.pieces import Part, Piece, replicated


def sharded_network(network: nn.Module) -> Part:
    """This rank's share of each parameter on stage 3; buffers from rank 0."""
    pieces = replicated(dict(network.named_buffers())).pieces
    for name, parameter in network.named_parameters():
        pieces |= _share(name, parameter, parameter.ds_tensor)  # type: ignore[attr-defined]
    return Part(pieces, is_sharded=True)


def sharded_state(optimizer: Any, module: nn.Module) -> Part:
    """What this rank has of `PARAMETER.QUANTITY`, scalars from rank 0; empty before the first step."""
    flat: dict[str, Tensor] = next(iter(optimizer.optimizer.state.values()), {})
    scalars = {quantity: value for quantity, value in flat.items() if value.dim() == 0}
    names = [name for name, _ in module.named_parameters()]
    pieces = replicated({f"{name}.{key}": value for name in names for key, value in scalars.items()}).pieces
    for name, parameter in module.named_parameters():
        for quantity in flat.keys() - scalars.keys():
            pieces |= _fragment(f"{name}.{quantity}", parameter, quantity)
    return Part(pieces, is_sharded=True)


def _fragment(key: str, parameter: nn.Parameter, quantity: str) -> dict[str, Piece]:
    """This rank's piece of a parameter's state; none where it has none."""
    if hasattr(parameter, "ds_tensor"):
        from deepspeed.utils import safe_get_local_optimizer_state

        return _share(key, parameter, safe_get_local_optimizer_state(parameter, quantity))
    mapping: Any = getattr(parameter, "_hp_mapping", None)
    if mapping is None:
        return {}
    values = mapping.get_optim_state_fragment(quantity).detach().reshape(-1)
    return {key: Piece(tuple(parameter.shape), mapping.lp_fragment_address.start, values)}


def _share(key: str, parameter: Any, padded: Tensor) -> dict[str, Piece]:
    """This rank's equal share of a parameter of stage 3, without the numbers that only fill the last ones up."""
    size = int(parameter.ds_tensor.ds_numel)
    start = size * torch.distributed.get_rank()
    values = padded.detach().reshape(-1)[: max(0, min(size, parameter.ds_numel - start))]
    return {key: Piece(tuple(parameter.ds_shape), start, values)} if values.numel() else {}


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
