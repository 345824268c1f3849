"""Values with their derivative along one direction, carried forward through layers: y and dy = J dx.

Written out by hand, because forward-mode automatic differentiation does not reach through custom ops. What comes out is
differentiable in parameters by ordinary backward passes.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fastgan.ops import LEAKY_RELU_SLOPE


class Dual(NamedTuple):
    """A tensor and its tangent, of one shape and dtype."""

    value: Tensor
    tangent: Tensor


class HasDual(Protocol):
    """A network of images whose `dual` is its forward pass on dual numbers."""

    def dual(self, images: Dual, labels: Tensor | None = None) -> Dual:
        """[N, C, H, W] with tangents (and [N] labels) to logits [N] with tangents."""
        ...


def has_dual(network: nn.Module) -> bool:
    """Whether the network has a `dual`."""
    return callable(getattr(network, "dual", None))


def activate(z: Dual, activation: str) -> Dual:
    """activation(z) and activation'(z) dz; the names are those of `fastgan.ops.ACTIVATIONS`."""
    x, t = z
    match activation:
        case "relu":
            return Dual(torch.relu(x), torch.where(x > 0, t, torch.zeros_like(t)))
        case "leaky_relu":
            return Dual(torch.where(x > 0, x, LEAKY_RELU_SLOPE * x), torch.where(x > 0, t, LEAKY_RELU_SLOPE * t))
        case "tanh":
            y = torch.tanh(x)
            return Dual(y, (1 - y.square()) * t)
        case "silu":
            s = torch.sigmoid(x)
            return Dual(x * s, s * (1 + x * (1 - s)) * t)
    return z
