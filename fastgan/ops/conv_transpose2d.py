"""Transposed convolution with a fused epilogue.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

import torch.nn.functional as F
from torch import Tensor

from fastgan.ops.bias_act import bias_act_reference
from fastgan.ops.choice import choose_implementation
from fastgan.ops.contract import check_convolution
from fastgan.ops.conv2d import Size2, cast, fold_scale


def conv_transpose2d(  # noqa: PLR0917 - the positional arguments are torch's
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size2 = 1,
    padding: Size2 = 0,
    output_padding: Size2 = 0,
    groups: int = 1,
    dilation: Size2 = 1,
    *,
    scale: Tensor | None = None,
    noise: Tensor | None = None,
    activation: str = "linear",
    gain: float = 1.0,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """clamp(gain * activation(scale * conv_transpose(x, weight) + noise + bias)); the arguments up to `*` are torch's.

    Output size: H' = (H - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1.

    Args:
        x: [N, C, H, W], floating point; channels_last is the fast memory format.
        weight: [C, O / G, K, K], dtype of `x`.
        bias, scale, noise: as in `conv2d`.
    Returns:
        [N, O, H', W'], dtype of `x`; differentiable any number of times in x, weight, bias, scale and noise.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """
    check_convolution(
        "conv_transpose2d", x, weight, groups=groups, bias=bias, scale=scale, activation=activation, clamp=clamp
    )
    choose_implementation("conv_transpose2d", impl)
    weight, scale = fold_scale(weight, scale, out_dim=1, groups=groups)
    inner, outer = (bias, None) if scale is None else (None, bias)
    y = F.conv_transpose2d(x, weight, cast(inner, x), stride, padding, output_padding, groups, dilation)
    y = y if scale is None else y * scale.to(y.dtype)[:, :, None, None]
    return bias_act_reference(y, outer, noise=noise, activation=activation, gain=gain, clamp=clamp)
