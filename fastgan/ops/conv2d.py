"""Convolution with a fused epilogue.

Shape legend: N batch, C input channels, O output channels, H W pixels, K kernel size, G groups.
"""

from torch import Tensor

from fastgan.kernels.spec import Activation
from fastgan.ops.contract import Size2
from fastgan.ops.fused import Epilogue, Sizes, fused_convolution


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
        x: [N, C, H, W] or [C, H, W], floating point; channels_last is the fast memory format.
        weight: [O, C / G, K, K], dtype of `x`.
        bias: [O].
        scale: [], [1] or [O] per output channel, e.g. 1 / spectral norm; or [N, O], e.g. demodulation.
        noise: broadcastable to the output.
        impl: "auto", "reference", "triton" or "cudnn_fused".
    Returns:
        [N, O, H', W'], dtype of `x` or under torch.autocast its dtype, in channels_last unless the reference served;
        differentiable any number of times in x, weight, bias, scale and noise.
    Raises:
        ValueError, TypeError, ImplementationError: naming the argument, its value and the rule.
    """
    sizes = Sizes(stride, padding, dilation, groups)
    epilogue = Epilogue(bias, scale, noise, Activation(activation, gain, clamp))
    return fused_convolution("conv2d", x, weight, sizes=sizes, epilogue=epilogue, impl=impl)
