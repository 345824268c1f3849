"""What the training step needs from a parallel engine.

An engine owns one objective (a network with its whole loss) and that network's optimizer. The step calls it once per
micro-batch for the forward pass, once for the backward pass, and once per update for the optimizer step.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Protocol

from torch import Tensor, nn

from fastgan.objectives import ObjectiveOutput

Objective = nn.Module
StateDict = dict[str, Any]
MakeOptimizer = Callable[[list[nn.Parameter]], "Any"]


class Engine(Protocol):
    """One network's objective and optimizer under some way of running on several processes."""

    def __call__(self, *args: Any, **kwargs: Any) -> ObjectiveOutput:
        """The objective's forward pass for one micro-batch."""
        ...

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`; after the last micro-batch the gradient is the global one.

        Args:
            weight: share of the global batch that this micro-batch of this rank holds; sums to 1 over all.
            is_last: whether this is the update's last micro-batch on this rank.
        """
        ...

    def step(self) -> None:
        """One optimizer step with the accumulated gradient, which is cleared."""
        ...

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the accumulated global gradient."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """The optimizer's state, in torch's format; the network is saved by the caller."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...
