"""One process, no communication."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.parallel.engine import Output
from fastgan.parallel.optimizer_state import load_optimizer_state, optimizer_state
from fastgan.parallel.pieces import Part, given, named_tensors


class SingleEngine:
    """The engine of a run on one process: gradients are local, and local is global.

    Args:
        objective: the network with its loss; returns an `Output`.
        optimizer: over the parameters of the objective.
    """

    keeps_graph = True

    def __init__(self, objective: nn.Module, *, optimizer: torch.optim.Optimizer) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self._parameters = list(objective.parameters())

    def __call__(self, *args: Any, is_last: bool = True, **kwargs: Any) -> Output:
        """The objective's forward pass for one micro-batch."""
        del is_last
        output: Output = self.objective(*args, **kwargs)
        return output

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`; `is_last` changes nothing, since nothing is communicated."""
        del is_last
        # Named, so that none is formed for the images, which require grad where a penalty is due: nobody would read it.
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        (loss if weight == 1 else loss * float(weight)).backward(inputs=trained)  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """One optimizer step with the accumulated gradient, which is cleared."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def discard(self) -> None:
        """Clears the accumulated gradient without a step."""
        self.optimizer.zero_grad(set_to_none=True)

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the accumulated gradient."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        return nn.utils.get_total_norm(gradients).float()

    def gathered(self) -> AbstractContextManager[None]:
        """Nothing to gather."""
        return nullcontext()

    def network_part(self, network: nn.Module) -> Part:
        """The whole network."""
        return given(named_tensors(network))

    def optimizer_part(self) -> Part:
        """The whole state as `PARAMETER.QUANTITY`."""
        return given(optimizer_state(self.optimizer, self.objective))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the optimizer's state from whole tensors."""
        load_optimizer_state(self.optimizer, self.objective, state)
