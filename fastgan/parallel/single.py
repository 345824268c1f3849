"""One process, no communication."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.parallel.engine import Objective


class SingleEngine:
    """The engine of a run on one process: gradients are local, and local is global.

    Args:
        objective: the network with its loss; called as it is.
        optimizer: over the parameters of the objective.
    """

    def __init__(self, objective: Objective, *, optimizer: torch.optim.Optimizer) -> None:
        self.objective = objective
        self.optimizer = optimizer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The objective's forward pass for one micro-batch."""
        return self.objective(*args, **kwargs)

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`."""
        (loss if weight == 1 else loss * float(weight)).backward()

    def step(self) -> None:
        """One optimizer step with the accumulated gradient, which is cleared."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the accumulated gradient."""
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        return nn.utils.get_total_norm(gradients).float()

    def state_dict(self) -> Mapping[str, Any]:
        """The optimizer's state, in torch's format."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.optimizer.load_state_dict(dict(state))
