"""An optimizer's state as flat, named tensors, so that it can be saved without pickle and read by any engine."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.errors import CheckpointError


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """`PARAMETER.QUANTITY` to tensor, for example `generator.to_image.weight.exp_avg`; empty before the first step."""
    return {
        f"{name}.{quantity}": value
        for name, parameter in module.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Restores what `optimizer_state` returned for an optimizer over the same parameters.

    Raises:
        CheckpointError: if a tensor belongs to no parameter, or its shape is not that of its parameter.
    """
    parameters = dict(module.named_parameters())
    restored: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, quantity = key.rpartition(".")
        if name not in parameters:
            raise CheckpointError(
                f"optimizer state {key!r} belongs to no parameter of this network; use its own config"
            )
        restored.setdefault(name, {})[quantity] = _like_parameter(key, value, parameters[name])
    if restored and restored.keys() != parameters.keys():
        missing = ", ".join(sorted(parameters.keys() - restored.keys()))
        raise CheckpointError(f"the optimizer state lacks {missing}; use an earlier checkpoint")
    # torch numbers parameters by their place in the groups.
    numbers = _numbers(optimizer, parameters)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {numbers[name]: values for name, values in restored.items()}, "param_groups": groups}
    )


def _numbers(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, int]:
    places: dict[Any, int] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            places[parameter] = len(places)
    return {name: places[parameter] for name, parameter in parameters.items()}


def _like_parameter(key: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
    """`value` in the parameter's memory format, which fused optimizers rely on; scalars such as `step` as they are."""
    if value.dim() == 0:
        return value
    if value.shape != parameter.shape:
        rule = f"its parameter has {list(parameter.shape)}"
        raise CheckpointError(f"optimizer state {key!r} has shape {list(value.shape)} and {rule}; use its own config")
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
