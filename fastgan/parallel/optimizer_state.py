"""An optimizer's state as flat, named tensors, so that it can be saved without pickle and read by any engine."""

from collections.abc import Callable, Mapping
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


def place_like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """`value` on the parameter's device, in its memory format, which fused optimizers rely on."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    place: Callable[[Tensor, nn.Parameter], Tensor] = place_like,
) -> None:
    """Restores what `optimizer_state` returned for an optimizer over the same parameters.

    Args:
        place: makes of a saved tensor what the optimizer keeps for its parameter; scalars stay as they are.
    Raises:
        CheckpointError: if a tensor belongs to no parameter, or its shape is not that of its parameter.
    """
    parameters = dict(module.named_parameters())
    restored = checked_states(state, {name: parameter.shape for name, parameter in parameters.items()})
    # torch numbers parameters by their place in the groups.
    numbers = _numbers(optimizer, parameters)
    groups = optimizer.state_dict()["param_groups"]
    placed = {
        numbers[name]: {
            quantity: value if value.dim() == 0 else place(value, parameters[name])
            for quantity, value in values.items()
        }
        for name, values in restored.items()
    }
    optimizer.load_state_dict({"state": placed, "param_groups": groups})


def checked_states(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, dict[str, Tensor]]:
    """The state by parameter and quantity, for parameters of these `shapes`.

    Raises:
        CheckpointError: if a tensor belongs to no parameter, its shape is not that of its parameter, or one is missing.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        name, _, quantity = key.rpartition(".")
        if name not in shapes:
            raise CheckpointError(
                f"optimizer state {key!r} belongs to no parameter of this network; use its own config"
            )
        if value.dim() > 0 and value.shape != shapes[name]:
            rule = f"its parameter has {list(shapes[name])}"
            raise CheckpointError(
                f"optimizer state {key!r} has shape {list(value.shape)} and {rule}; use its own config"
            )
        states.setdefault(name, {})[quantity] = value
    if states and states.keys() != shapes.keys():
        missing = ", ".join(sorted(shapes.keys() - states.keys()))
        raise CheckpointError(f"the optimizer state lacks {missing}; use an earlier checkpoint")
    return states


def _numbers(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, int]:
    places: dict[Any, int] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            places[parameter] = len(places)
    return {name: places[parameter] for name, parameter in parameters.items()}
