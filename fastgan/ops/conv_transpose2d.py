"""Transposed convolution with a fused epilogue.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

from torch import Tensor

from fastgan.kernels.spec import Activation
from fastgan.ops.contract import Size2
from fastgan.ops.fused import Epilogue, Sizes, fused_convolution


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
        x: [N, C, H, W] or [C, H, W], floating point; channels_last is the fast memory format.
        weight: [C, O / G, K, K], dtype of `x`.
        bias, scale, noise, impl: as in `conv2d`.
    Returns:
        [N, O, H', W'], dtype of `x` or under torch.autocast its dtype, in channels_last unless the reference served;
        differentiable any number of times in x, weight, bias, scale and noise.
    Raises:
        ValueError, TypeError, ImplementationError: naming the argument, its value and the rule.
    """
    sizes = Sizes(stride, padding, dilation, groups, output_padding)
    epilogue = Epilogue(bias, scale, noise, Activation(activation, gain, clamp))
    return fused_convolution("conv_transpose2d", x, weight, sizes=sizes, epilogue=epilogue, impl=impl)
