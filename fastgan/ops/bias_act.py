"""Bias, noise, activation, gain and clamp in one op: the epilogue of every convolution.

Shape legend: N batch, C channels, H W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.ops.choice import choose_implementation
from fastgan.ops.contract import LEAKY_RELU_SLOPE, check_epilogue, check_images


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    activation: str = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """clamp(gain * activation(x + noise + bias)), element by element.

    Args:
        x: [N, C, H, W], floating point.
        bias: [C], added to each channel.
        noise: broadcastable to [N, C, H, W], e.g. [N, 1, H, W].
        activation: linear, relu, leaky_relu (slope 0.2), tanh or silu.
        gain: factor applied after the activation.
        clamp: bound on the absolute value of the result, applied last.
        impl: "auto" or "reference".
    Returns:
        [N, C, H, W], dtype and memory format of `x`; differentiable any number of times.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """
    check_images("bias_act", x)
    check_epilogue("bias_act", (x.shape[0], x.shape[1]), bias=bias, scale=None, activation=activation, clamp=clamp)
    choose_implementation("bias_act", impl)
    return bias_act_reference(x, bias, noise=noise, activation=activation, gain=gain, clamp=clamp)


def bias_act_reference(
    x: Tensor, bias: Tensor | None, *, noise: Tensor | None, activation: str, gain: float, clamp: float | None
) -> Tensor:
    """The definition of `bias_act`, in plain PyTorch."""
    y = x
    if noise is not None:
        y = y + noise.to(x.dtype)
    if bias is not None:
        y = y + bias.to(x.dtype)[:, None, None]
    y = _activate(y, activation)
    if gain != 1.0:
        y = y * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def _activate(y: Tensor, activation: str) -> Tensor:
    match activation:
        case "relu":
            return F.relu(y)
        case "leaky_relu":
            return F.leaky_relu(y, LEAKY_RELU_SLOPE)
        case "tanh":
            return torch.tanh(y)
        case "silu":
            return F.silu(y)
    return y
