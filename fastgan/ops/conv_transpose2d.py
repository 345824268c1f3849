"""Transposed convolution with a fused epilogue.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

import torch.nn.functional as F
from torch import Tensor

from fastgan.ops.bias_act import bias_act_reference
from fastgan.ops.choice import choose_implementation
from fastgan.ops.contract import check_epilogue, check_images, check_weight
from fastgan.ops.conv2d import Size2, fold_scale


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
    """clamp(gain * activation(scale * conv_transpose(x, weight) + noise + bias)).

    The first eight arguments are those of `torch.nn.functional.conv_transpose2d`, the others the epilogue of
    `bias_act`. Output size: H' = (H - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1.

    Args:
        x: [N, C, H, W], floating point; channels_last is the fast memory format.
        weight: [C, O / G, K, K], dtype of `x`.
        bias: [O].
        scale: [], [1] or [O] per output channel, e.g. 1 / spectral norm; or [N, O], e.g. demodulation.
        noise: broadcastable to the output.
    Returns:
        [N, O, H', W'], dtype of `x`; differentiable any number of times in x, weight, bias, scale and noise.
    Raises:
        ValueError, TypeError: naming the argument, its value and the rule.
    """
    check_images("conv_transpose2d", x)
    check_weight("conv_transpose2d", x, weight, groups, in_dim=0)
    out_shape = (x.shape[0], weight.shape[1] * groups)
    check_epilogue("conv_transpose2d", out_shape, bias=bias, scale=scale, activation=activation, clamp=clamp)
    choose_implementation("conv_transpose2d", impl)
    weight, scale = fold_scale(weight, scale, out_dim=1, groups=groups)
    fused_bias = bias.to(x.dtype) if bias is not None and scale is None else None
    y = F.conv_transpose2d(x, weight, fused_bias, stride, padding, output_padding, groups, dilation)
    y = y if scale is None else y * scale.to(y.dtype)[:, :, None, None]
    rest = None if fused_bias is not None else bias
    return bias_act_reference(y, rest, noise=noise, activation=activation, gain=gain, clamp=clamp)
