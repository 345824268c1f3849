"""What the training step needs from a parallel engine.

An engine owns one objective (a network with its whole loss) and that network's optimizer. The step calls it once per
micro-batch for the forward pass, once for the backward pass, and once per update for the optimizer step.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

from torch import Tensor


class Output(Protocol):
    """What an objective's forward pass returns."""

    @property
    def loss(self) -> Tensor:
        """Scalar to differentiate."""
        ...

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Detached scalars to log, by name."""
        ...


class Engine(Protocol):
    """One network's objective and optimizer under some way of running on one or several processes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Output:
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

    def state_dict(self) -> dict[str, Tensor]:
        """The optimizer's state as `PARAMETER.QUANTITY`; hyperparameters belong to the configuration."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            CheckpointError: if a key is missing or unknown, or a shape differs.
        """
        ...
