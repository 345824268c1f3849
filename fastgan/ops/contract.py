"""Checks shared by the convolution ops: each error names the argument, its value and the rule.

Shape legend: N batch, C channels, H W pixels, O output channels.
"""

import torch
from torch import Tensor

from fastgan.errors import did_you_mean

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "silu")

# The slope that GAN papers use since DCGAN (Radford et al. 2016, arXiv:1511.06434).
LEAKY_RELU_SLOPE = 0.2

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shape(x: Tensor) -> list[int]:
    """The sizes as a list, which prints as [2, 3]."""
    return list(x.shape)


def check_images(op: str, x: Tensor) -> None:
    """`x` is [N, C, H, W] and floating point."""
    if x.dim() != 4:
        raise ValueError(f"{op}: x has shape {shape(x)}; it must be [N, C, H, W]")
    if x.dtype not in _FLOATS:
        raise TypeError(f"{op}: x has dtype {x.dtype}; it must be one of {', '.join(map(str, _FLOATS))}")


def check_weight(op: str, x: Tensor, weight: Tensor, groups: int, *, in_dim: int) -> None:
    """`weight` is 4-D, of the dtype of `x`, and its channels fit those of `x` in `groups` groups.

    Args:
        in_dim: dimension of `weight` that holds input channels: 1 for conv2d, 0 for conv_transpose2d.
    """
    if weight.dim() != 4:
        raise ValueError(f"{op}: weight has shape {shape(weight)}; it must have 4 dimensions")
    if weight.dtype != x.dtype:
        raise TypeError(f"{op}: weight has dtype {weight.dtype} and x has {x.dtype}; they must be equal")
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise ValueError(f"{op}: groups={groups} must be positive and divide the {channels} channels of x")
    expected = channels if in_dim == 0 else channels // groups
    if weight.shape[in_dim] != expected:
        got = f"{op}: weight has shape {shape(weight)}, {weight.shape[in_dim]} input channels"
        raise ValueError(f"{got}; x has {channels} in {groups} groups, so dimension {in_dim} must be {expected}")
    if in_dim == 1 and weight.shape[0] % groups:
        raise ValueError(f"{op}: groups={groups} must divide the {weight.shape[0]} output channels of weight")


def check_convolution(
    op: str,
    x: Tensor,
    weight: Tensor,
    *,
    groups: int,
    bias: Tensor | None,
    scale: Tensor | None,
    activation: str,
    clamp: float | None,
) -> None:
    """All that conv2d and conv_transpose2d ask of their arguments; padding and sizes are left to torch's own check."""
    check_images(op, x)
    in_dim = 0 if op == "conv_transpose2d" else 1
    check_weight(op, x, weight, groups, in_dim=in_dim)
    out_channels = weight.shape[0] if in_dim == 1 else weight.shape[1] * groups
    check_epilogue(op, (x.shape[0], out_channels), bias=bias, scale=scale, activation=activation, clamp=clamp)


def check_epilogue(
    op: str,
    out_shape: tuple[int, int],
    *,
    bias: Tensor | None,
    scale: Tensor | None,
    activation: str,
    clamp: float | None,
) -> None:
    """`bias` is [O]; `scale` holds 1 or O numbers, or is [N, O]; `activation` is known; `clamp` is positive."""
    batch, channels = out_shape
    if bias is not None and shape(bias) != [channels]:
        raise ValueError(f"{op}: bias has shape {shape(bias)}; it must be [{channels}], one number per output channel")
    if scale is not None and shape(scale) not in ([], [1], [channels], [batch, channels]):
        rule = f"it must be [], [1], [{channels}] or [{batch}, {channels}]"
        raise ValueError(f"{op}: scale has shape {shape(scale)}; {rule}")
    if activation not in ACTIVATIONS:
        rule = f"must be one of {', '.join(ACTIVATIONS)}"
        raise ValueError(f"{op}: activation={activation!r} {rule}{did_you_mean(activation, ACTIVATIONS)}")
    if clamp is not None and not clamp > 0:
        raise ValueError(f"{op}: clamp={clamp} must be positive, or None for no clamp")
