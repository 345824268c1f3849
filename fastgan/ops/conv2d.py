"""Convolution with a fused epilogue.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.ops.bias_act import bias_act_reference
from fastgan.ops.choice import choose_implementation
from fastgan.ops.contract import check_convolution

Size2 = int | tuple[int, int]


def conv2d(  # noqa: PLR0917 - the positional arguments are torch's
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size2 = 1,
    padding: Size2 | str = 0,
    dilation: Size2 = 1,
    groups: int = 1,
    *,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    activation: str = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """clamp(gain * activation(scale * conv(x, weight) + noise + bias)).

    The first seven arguments are those of `torch.nn.functional.conv2d`, the others the epilogue of `bias_act`.

    Args:
        x: [N, C, H, W], floating point; channels_last is the fast memory format.
        weight: [O, C / G, K, K], dtype of `x`.
        bias: [O].
        scale: [], [1] or [O] per output channel, e.g. 1 / spectral norm; or [N, O], e.g. demodulation.
        noise: broadcastable to the output.
    Returns:
        [N, O, H', W'], dtype of `x`; differentiable any number of times in x, weight, bias, scale and noise.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """
    check_convolution("conv2d", x, weight, groups=groups, bias=bias, scale=scale, activation=activation, clamp=clamp)
    choose_implementation("conv2d", impl)
    weight, scale = fold_scale(weight, scale, out_dim=0)
    # PyTorch's convolution adds the bias for free, unless something comes between the two.
    inner, outer = (bias, None) if scale is None else (None, bias)
    y = F.conv2d(x, weight, cast(inner, x), stride, padding, dilation, groups)
    y = y if scale is None else y * scale.to(y.dtype)[:, :, None, None]
    return bias_act_reference(y, outer, noise=noise, activation=activation, gain=gain, clamp=clamp)


def cast(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    """`tensor` in the dtype of `like`; None stays None."""
    return None if tensor is None else tensor.to(like.dtype)


def fold_scale(weight: Tensor, scale: Tensor | None, *, out_dim: int, groups: int = 1) -> tuple[Tensor, Tensor | None]:
    """Multiplies a per-channel scale into the weight, which is smaller than the output; [N, O] is left over.

    Args:
        out_dim: dimension of `weight` that holds output channels: 0 for conv2d, 1 for conv_transpose2d.
        groups: with out_dim=1 and several groups, `weight` [C, O / G, K, K] holds group g's output channels in the
            rows of group g.
    Returns:
        The weight to convolve with, and the scale that remains to be applied to the output, or None.
    """
    if scale is None or scale.dim() == 2:
        return weight, scale
    dtype = torch.promote_types(weight.dtype, scale.dtype)
    if scale.numel() == 1:
        factor = scale.reshape(1, 1, 1, 1)
    elif out_dim == 0:
        factor = scale[:, None, None, None]
    else:
        rows = scale.reshape(groups, 1, -1).expand(groups, weight.shape[0] // groups, -1)
        factor = rows.reshape(weight.shape[0], -1)[:, :, None, None]
    return (weight.to(dtype) * factor).to(weight.dtype), None
