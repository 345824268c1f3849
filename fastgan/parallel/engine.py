"""What the training step needs from a parallel engine.

An engine owns one objective (a network with its whole loss) and that network's optimizer. The step calls it once per
micro-batch for the forward pass, once for the backward pass, and once per update for the optimizer step.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastgan.parallel.pieces import Part

# Engines that replace parameters by shards build the optimizer over those.
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


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

    @property
    def fake_gradient(self) -> Tensor | None:
        """[N, C, H, W], of the generator's loss by the fakes, of a discriminator's objective that is asked for it."""
        ...


class Engine(Protocol):
    """One network's objective and optimizer under some way of running on one or several processes."""

    @property
    def keeps_graph(self) -> bool:
        """Whether what the network returns inside `gathered` can be differentiated after leaving it."""
        ...

    def __call__(self, *args: Any, is_last: bool = True, **kwargs: Any) -> Output:
        """The objective's forward pass for one micro-batch; `is_last` as for `backward`."""
        ...

    def backward(self, loss: Tensor, *, weight: Fraction, is_last: bool) -> None:
        """Adds the gradient of `weight * loss`; after the last micro-batch the gradient is the global one.

        Args:
            weight: share of the global batch that this micro-batch of this rank holds; sums to 1 over all.
            is_last: whether this is the update's last micro-batch on this rank; gradients travel only then, except
                from stage 2 of DeepSpeed on.
        """
        ...

    def step(self) -> None:
        """One optimizer step with the accumulated gradient, which is cleared."""
        ...

    def discard(self) -> None:
        """Clears the accumulated gradient without a step."""
        ...

    def gradient_norm(self) -> Tensor:
        """Scalar float32: the 2-norm of the accumulated global gradient. All ranks call it together."""
        ...

    def gathered(self) -> AbstractContextManager[None]:
        """While entered, the network has its whole parameters and may be called directly. All ranks enter together."""
        ...

    def network_part(self, network: nn.Module) -> Part:
        """What this rank must save of the parameters and buffers of its network. Nothing is communicated."""
        ...

    def optimizer_part(self) -> Part:
        """What this rank must save of the optimizer's state, as `PARAMETER.QUANTITY`. Nothing is communicated.

        Hyperparameters are not part of it: they belong to the configuration.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the optimizer's state from whole tensors: the parts of all ranks of any engine, assembled.

        Raises:
            CheckpointError: if a key is missing or unknown, or a shape differs.
        """
        ...
